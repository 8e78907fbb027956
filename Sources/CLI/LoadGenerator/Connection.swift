import Glibc

/// An operation between its beginning and its end.
struct Exchange {
    var kind: OperationKind
    /// What is on its way is a write.
    var isWriting: Bool
    /// Redirects followed by the request that is on its way.
    var hops: UInt8 = 0
    var scanCount: UInt8 = 0
    /// Its latency counts.
    var isMeasured: Bool
    var client: Int32
    /// Of its value, where it writes one.
    var valueBytes: Int32 = 0
    var key: UInt64
    /// Of its value; see ``VerificationTable``.
    var sequence: UInt64 = 0
    /// What a verified read has to have at least.
    var floor = VerificationTable.Floor.none
    /// From when its latency counts: in an open loop the moment at which it was due.
    var start: UInt64
    /// When its request was sent, or the first of two.
    var sent: UInt64
}

/// Exchanges in the order of their requests.
struct ExchangeQueue: ~Copyable {
    private let slots: UnsafeMutablePointer<Exchange>
    private let mask: Int
    private var head = 0
    private(set) var count = 0

    init(capacity: Int) {
        var size = 1
        while size < capacity { size *= 2 }
        slots = .allocate(capacity: size)
        mask = size - 1
    }

    deinit { slots.deallocate() }

    var first: Exchange? { count > 0 ? slots[head & mask] : nil }

    mutating func append(_ exchange: Exchange) {
        precondition(count <= mask)
        (slots + ((head + count) & mask)).initialize(to: exchange)
        count += 1
    }

    mutating func removeFirst() -> Exchange {
        precondition(count > 0)
        defer {
            head += 1
            count -= 1
        }
        return slots[head & mask]
    }
}

/// A socket of one client to one node, and the requests on it. Confined to its ``LoadLoop``.
final class Connection {
    enum State { case closed, connecting, open }

    /// Its place in the loop's list.
    let index: Int
    let client: Int
    let node: Int
    var state = State.closed
    /// -1 while it is closed.
    var descriptor: CInt = -1
    /// After a connection that failed: not before.
    var retryAt: UInt64 = 0
    /// Written and not answered, some of it perhaps still in ``output``.
    var exchanges: ExchangeQueue
    var output = ByteQueue(capacity: 1 << 10)
    /// The beginning of an answer whose head is not complete.
    var input = ByteQueue(capacity: 256)
    var reader = AnswerReader()
    var value = ValueReader()
    /// Of a scan that is verified.
    var content: [UInt8] = []
    /// It stands in the loop's list of those that have output.
    var isDirty = false
    /// epoll tells when more can be written.
    var awaitsRoom = false

    init(index: Int, client: Int, node: Int, depth: Int) {
        self.index = index
        self.client = client
        self.node = node
        exchanges = ExchangeQueue(capacity: depth)
    }

    deinit { if descriptor >= 0 { Glibc.close(descriptor) } }

    /// Forgets socket, output and what was read; the exchanges stay.
    func close() {
        if descriptor >= 0 { Glibc.close(descriptor) }
        descriptor = -1
        state = .closed
        output.removeAll()
        input.removeAll()
        reader = AnswerReader()
        value = ValueReader()
        content = []
        awaitsRoom = false
    }
}
