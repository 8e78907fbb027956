package import Core
package import NIOCore
package import Wire

/// Splits a batch over the nodes that lead its shards and puts the answers together in the order of the operations:
/// pure, one value per batch. Clients, routers and nodes go by it.
///
/// Invariants:
/// - An operation is at one node at a time, and has one result in the end.
/// - Operations of one shard reach its leader in their order: a node has one part at a time, and nothing leaves while
///   an operation waits to be sent again.
/// - An operation is sent again only where it is known not to have been done, or where doing its part twice leaves
///   what doing it once leaves; and no more than `attemptsMax` times altogether.
package struct BatchProgress {
    package struct Policy: Sendable {
        /// Operations and bytes that go to a node together; one larger operation goes alone.
        package var partOperationsMax: Int
        package var partBytesMax: Int
        /// How often an operation is sent at the most; at least 1.
        package var attemptsMax: Int
        /// Sends plain writes again of which no answer came: they may then be done twice.
        package var repeatsPlainWrites: Bool
        /// Sends again what a node refused because it has too much to do.
        package var repeatsOverloaded: Bool

        package init(
            partOperationsMax: Int, partBytesMax: Int, attemptsMax: Int, repeatsPlainWrites: Bool,
            repeatsOverloaded: Bool
        ) {
            precondition(partOperationsMax > 0 && attemptsMax > 0)
            self.partOperationsMax = partOperationsMax
            self.partBytesMax = partBytesMax
            self.attemptsMax = attemptsMax
            self.repeatsPlainWrites = repeatsPlainWrites
            self.repeatsOverloaded = repeatsOverloaded
        }
    }

    /// The wait before what failed is sent again; it doubles from attempt to attempt.
    /// - Parameter attempt: how often it was sent, from 1.
    package static func pause(after attempt: Int) -> TimeAmount { .milliseconds(20 << Int64(min(attempt, 5) - 1)) }

    /// What an operation is, as far as sending it matters.
    package struct Operation: Sendable {
        package enum Kind: Sendable {
            case read
            /// A put or delete without a condition.
            case plainWrite
            case otherWrite
        }

        package var kind: Kind
        /// Of key and value.
        package var bytes: Int

        package init(_ operation: BatchOperation) {
            bytes = operation.contentBytes
            switch operation.action {
            case .get: kind = .read
            case .put, .delete: kind = operation.condition == nil ? .plainWrite : .otherWrite
            case .increment: kind = .otherWrite
            }
        }
    }

    /// Who leads a shard.
    package enum Leader: Sendable, Hashable {
        case node(NodeAddress)
        /// Nobody who can be asked now.
        case none(Problem)
    }

    /// Operations that go to one node together.
    package struct Part: Sendable {
        package let node: NodeAddress
        /// Their places in the batch, rising.
        package let operations: [Int]
    }

    package enum Step: Sendable, Hashable {
        /// ``nextParts(leaders:shard:)`` may have something.
        case send
        /// Nothing to do until parts are answered.
        case receive
        /// Look for a newer topology, and then ``resume()``. What is under way may be answered meanwhile.
        case wait(attempt: Int)
        case complete
    }

    private let policy: Policy
    private let operations: [Operation]
    private var lines: [BatchLine?]
    /// To be sent, rising.
    private var pending: [Int]
    /// To be sent again, with what stands in ``lines`` where there is no other attempt.
    private var waiting: [Int] = []
    private var busy: Set<NodeAddress> = []
    /// Who led when the parts under way were sent.
    private var leaders: [Leader] = []
    private var done = 0
    private var attempt = 1

    package init(_ operations: [Operation], policy: Policy) {
        self.policy = policy
        self.operations = operations
        lines = Array(repeating: nil, count: operations.count)
        pending = Array(operations.indices)
    }

    package var step: Step {
        if done == operations.count { return .complete }
        if !waiting.isEmpty { return .wait(attempt: attempt) }
        return pending.isEmpty ? .receive : .send
    }

    /// One for each operation, once ``step`` is complete.
    package var results: [BatchLine] {
        precondition(done == operations.count, "the batch is not complete")
        return lines.compactMap(\.self)
    }

    // MARK: Sending

    /// What is to be sent now.
    /// - Parameters:
    ///   - leaders: by the position of their shard.
    ///   - shard: the position of an operation's shard.
    package mutating func nextParts(leaders: [Leader], shard: (Int) -> Int) -> [Part] {
        guard waiting.isEmpty, !pending.isEmpty else { return [] }
        // An operation must not reach a new leader while those before it are with the old one.
        guard busy.isEmpty || leaders == self.leaders else { return [] }
        self.leaders = leaders
        var groups: [Group] = []
        let groupOfShard = leaders.map { leader -> Int? in
            guard case .node(let address) = leader else { return nil }
            if let known = groups.firstIndex(where: { $0.node == address }) { return known }
            groups.append(Group(node: address, isFull: busy.contains(address)))
            return groups.count - 1
        }
        var left: [Int] = []
        let candidates = pending
        pending = []
        for operation in candidates {
            let position = shard(operation)
            guard let group = groupOfShard[position] else {
                if case .none(let problem) = leaders[position] { again(operation, .result(.failed(problem))) }
                continue
            }
            if groups[group].takes(operations[operation], operation, policy) { continue }
            left.append(operation)
        }
        pending = left
        let parts = groups.filter { !$0.operations.isEmpty }.map { Part(node: $0.node, operations: $0.operations) }
        for part in parts { busy.insert(part.node) }
        return parts
    }

    private struct Group {
        let node: NodeAddress
        var isFull: Bool
        var operations: [Int] = []
        var bytes = 0

        mutating func takes(_ operation: Operation, _ index: Int, _ policy: Policy) -> Bool {
            let fits =
                operations.isEmpty
                || (operations.count < policy.partOperationsMax && bytes + operation.bytes <= policy.partBytesMax)
            // What follows one that does not fit must not overtake it.
            guard !isFull, fits else {
                isFull = true
                return false
            }
            operations.append(index)
            bytes += operation.bytes
            return true
        }
    }

    // MARK: Receiving

    package mutating func received(_ answer: BatchAnswer, of part: Part) {
        busy.remove(part.node)
        switch answer {
        case .lines(let lines):
            precondition(lines.count == part.operations.count, "a result for each operation")
            for (operation, line) in zip(part.operations, lines) {
                if line.isFailure, isUndone(line) { again(operation, line) } else { settle(operation, line) }
            }
        case .refused(let failure):
            let line = BatchLine.result(.failed(BatchProgress.explained(failure)))
            for operation in part.operations {
                if isUndone(line) { again(operation, line) } else { settle(operation, line) }
            }
        case .failed(var failure, let maybeDone):
            let repeats = !maybeDone || isRepeatable(part)
            if maybeDone { failure.detail += " The operation may have been done." }
            for operation in part.operations {
                if repeats {
                    again(operation, .result(.failed(failure)))
                } else {
                    settle(operation, .result(.failed(failure)))
                }
            }
        }
    }

    /// Operations that wait go out with the next parts.
    package mutating func resume() {
        pending = (waiting + pending).sorted()
        waiting = []
        attempt += 1
    }

    /// Nothing is sent any more: what has not been sent, or waits to be again, ends with what is known of it.
    package mutating func giveUp(_ problem: Problem) {
        for operation in waiting { settle(operation, lines[operation] ?? .result(.failed(problem))) }
        for operation in pending { settle(operation, lines[operation] ?? .result(.failed(problem))) }
        waiting = []
        pending = []
    }

    private mutating func settle(_ operation: Int, _ line: BatchLine) {
        lines[operation] = line
        done += 1
    }

    private mutating func again(_ operation: Int, _ line: BatchLine) {
        guard attempt < policy.attemptsMax else { return settle(operation, line) }
        lines[operation] = line
        waiting.append(operation)
    }

    /// Whether the node says that it has not done the operation, and another attempt may go better.
    private func isUndone(_ line: BatchLine) -> Bool {
        line.states(.notLeader) || line.states(.unavailable) || policy.repeatsOverloaded && line.states(.overloaded)
    }

    private func isRepeatable(_ part: Part) -> Bool {
        // A get among writes would see, the second time, those behind it.
        part.operations.allSatisfy { operations[$0].kind == .read }
            || policy.repeatsPlainWrites && part.operations.allSatisfy { operations[$0].kind == .plainWrite }
    }

    /// What a node without batches answers says nothing about the operation's key.
    private static func explained(_ failure: BatchResult.Failure) -> BatchResult.Failure {
        guard failure.is(.unknownPath) || failure.is(.methodNotAllowed) else { return failure }
        return BatchResult.Failure(Problem(.badGateway, "The node does not take batches: \(failure.detail)"))
    }
}

extension BatchProgress.Policy {
    /// Of routers and nodes, which send nothing again that may have been done: the client decides that. Parts are whatever
    /// a batch can be, and a leader that changes has a second and a quarter to show up.
    package static let service = BatchProgress.Policy(
        partOperationsMax: Limits.batchOperationsMax, partBytesMax: .max, attemptsMax: 7, repeatsPlainWrites: false,
        repeatsOverloaded: false)
}
