/// When an acknowledged write is on the disk, not only with the operating system.
///
/// A process that is killed loses no acknowledged write in any of them; a machine that loses power loses none
/// with ``always``.
public enum Durability: String, Sendable, Hashable, CaseIterable {
    /// After an fsync before the answer, shared by the writes that wait at that moment.
    case always
    /// When the operating system has it; an fsync follows within 100 ms.
    case interval
    /// When the operating system has it.
    case os
}
