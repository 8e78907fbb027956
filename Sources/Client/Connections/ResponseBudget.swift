/// Bytes of response bodies that the connections of one event loop hold while they arrive. Confined to the loop.
final class ResponseBudget {
    private let bytesMax: Int
    private var used = 0

    init(bytesMax: Int) { self.bytesMax = bytesMax }

    /// False where `count` bytes more are too many.
    func take(_ count: Int) -> Bool {
        guard used + count <= bytesMax else { return false }
        used += count
        return true
    }

    func giveBack(_ count: Int) { used -= count }
}
