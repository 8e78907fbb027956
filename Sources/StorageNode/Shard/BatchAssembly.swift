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
    /// From when the lives of values are counted.
    private let lifeBegins: UInt64
    private var checks: CheckedWrites?
    /// Of the next operation that becomes a record: what is refused or only read takes no version, so that the version of a
    /// removal, which has no record of it, can be told from those around it.
    private var version: UInt64
    private let firstVersion: Version
    /// Behind the position record.
    private let positionEnd: WriteBatchBuilder.Mark

    /// Of the last operation that has become a record; the batch's own. `firstVersion` if there is none.
    var lastVersion: Version { Version(rawValue: max(version, firstVersion.rawValue + 1) - 1) }

    /// The batch. Nobody else holds its bytes, so that finishing it copies nothing.
    consuming func finish() -> WriteBatchBuilder {
        if !remarks.isEmpty { builder.setBigEndian(lastVersion.rawValue, before: positionEnd) }
        return builder
    }

    /// - Parameters:
    ///   - builder: with the position record in it and nothing else.
    ///   - checks: nil where no operation depends on what is stored.
    init(_ builder: WriteBatchBuilder, firstVersion: Version, lifeBegins: UInt64, checks: CheckedWrites?) {
        self.lifeBegins = lifeBegins
        self.firstVersion = firstVersion
        positionEnd = builder.mark
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
                    key: key, version: Version(rawValue: version),
                    expires: ExpiryClock.moment(milliseconds, after: lifeBegins), value: value)
            case .delete(let key): builder.delete(key: key)
            // These are checked.
            case .increment, .read, .conditional: assertionFailure("an operation that depends on what is stored")
            }
            version += 1
        }
    }

    private mutating func addChecked(_ operation: WriteOperation) -> WriteReceipt.Remark? {
        let remark = checks?.add(operation, version: Version(rawValue: version), to: &builder)
        if remark?.takesVersion ?? true { version += 1 }
        return remark
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
            version = firstVersion
            return
        }
    }
}
