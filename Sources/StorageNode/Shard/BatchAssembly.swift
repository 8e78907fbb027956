import Core
import LSM
import NIOCore

/// A log batch while it is built from submissions.
struct BatchAssembly {
    /// What there is to say of an operation beyond its version.
    struct Noted {
        var submission: Int
        var operation: Int
        var remark: WriteReceipt.Remark
    }

    private var builder: WriteBatchBuilder
    private(set) var remarks: [Noted] = []
    private let expiries: ExpiryClock
    private var checks: CheckedWrites?
    /// Of the next operation; the others follow one by one, also for those that are refused.
    private var version: UInt64

    /// The batch. Nobody else holds its bytes, so that finishing it copies nothing.
    consuming func finish() -> WriteBatchBuilder { builder }

    /// - Parameter checks: nil where no operation depends on what is stored.
    init(_ builder: WriteBatchBuilder, firstVersion: Version, expiries: ExpiryClock, checks: CheckedWrites?) {
        self.expiries = expiries
        self.builder = builder
        self.checks = checks
        version = firstVersion.rawValue
    }

    /// - Parameters:
    ///   - operations: which ones of the submission; all of an atomic one.
    ///   - number: of the submission, for ``remarks``.
    mutating func add(_ operations: Range<Int>, of submission: Submission, at number: Int) {
        guard checks != nil else { return addPlain(submission.operations[operations]) }
        checks?.beginSubmission()
        guard submission.isAtomic else {
            for index in operations {
                if let remark = addChecked(submission.operations[index]) {
                    remarks.append(Noted(submission: number, operation: index, remark: remark))
                }
            }
            return
        }
        addAtomically(submission.operations, at: number)
    }

    private mutating func addPlain(_ operations: ArraySlice<WriteOperation>) {
        for operation in operations {
            switch operation {
            case .put(let key, let value): builder.put(key: key, version: Version(rawValue: version), value: value)
            case .expiringPut(let key, let value, let milliseconds):
                builder.put(
                    key: key, version: Version(rawValue: version), expires: expiries.moment(after: milliseconds),
                    value: value)
            case .delete(let key): builder.delete(key: key)
            // These are checked.
            case .increment, .read, .conditional: assertionFailure("an operation that depends on what is stored")
            }
            version += 1
        }
    }

    private mutating func addChecked(_ operation: WriteOperation) -> WriteReceipt.Remark? {
        defer { version += 1 }
        return checks?.add(operation, version: Version(rawValue: version), to: &builder)
    }

    /// Adds all of them; where one is refused, none.
    private mutating func addAtomically(_ operations: [WriteOperation], at number: Int) {
        let (mark, before, firstRemark, firstVersion) = (builder.mark, checks, remarks.count, version)
        for (index, operation) in operations.enumerated() {
            guard let remark = addChecked(operation) else { continue }
            guard case .refused = remark else {
                remarks.append(Noted(submission: number, operation: index, remark: remark))
                continue
            }
            builder.rollBack(to: mark)
            checks = before
            remarks.removeSubrange(firstRemark...)
            for other in operations.indices {
                remarks.append(
                    Noted(
                        submission: number, operation: other,
                        remark: other == index ? remark : .refused(.otherRefused)))
            }
            version = firstVersion + UInt64(operations.count)
            return
        }
    }
}
