import Core

/// Carries requests and answers between the processes, in virtual time: loses, delays, repeats and reorders them, and
/// lets nothing through between processes that are cut off from each other.
final class SimulatedNetwork {
    struct Faults {
        var lossPercent: UInt64 = 0
        var duplicatePercent: UInt64 = 0
        var delayMicrosecondsMax: UInt64 = 200
        /// Of a repeated request.
        var lateMicrosecondsMax: UInt64 = 300_000
    }

    unowned let world: Simulation
    var faults = Faults()
    /// Unordered pairs, each written in both directions.
    private var cuts: Set<Pair> = []

    private struct Pair: Hashable {
        let from: String
        let to: String
    }

    init(world: Simulation) { self.world = world }

    func cut(_ one: String, _ other: String) {
        cuts.insert(Pair(from: one, to: other))
        cuts.insert(Pair(from: other, to: one))
    }

    func healAll() { cuts = [] }

    private func isCut(_ from: String, _ to: String) -> Bool {
        !cuts.isEmpty && cuts.contains(Pair(from: from, to: to))
    }

    private var delay: Instant { Instant(world.below(faults.delayMicrosecondsMax)) }

    /// Sends a request and its answer back.
    /// - Parameters:
    ///   - failed: what the sender takes for the answer when none comes in `timeout`, or nobody listens.
    ///   - serve: runs at the receiver, perhaps twice, and answers through its argument; nil refuses the connection.
    ///   - finish: runs at the sender, once.
    func exchange<Outcome>(
        from: String, to node: SimulatedNode, timeout: Instant, failed: Outcome,
        _ serve: @escaping (SimulatedNode.Process, @escaping (Outcome) -> Void) -> Void,
        _ finish: @escaping (Outcome) -> Void
    ) {
        var isAnswered = false
        let answer: (Outcome) -> Void = { outcome in
            guard !isAnswered else { return }
            isAnswered = true
            finish(outcome)
        }
        world.after(timeout) { answer(failed) }
        let name = node.name
        let copies = world.chance(faults.duplicatePercent) ? 2 : 1
        for copy in 0..<copies where !world.chance(faults.lossPercent) {
            let late = copy == 1 ? Instant(world.below(faults.lateMicrosecondsMax)) : 0
            world.after(delay + late) {
                guard !self.isCut(from, name) else { return }
                node.whenAwake {
                    guard let process = node.process else {
                        self.world.after(self.delay) { answer(failed) }
                        return
                    }
                    serve(process) { outcome in
                        // An answer of a process that is gone, or on its way when the network is cut, is lost.
                        guard node.process === process, !self.world.chance(self.faults.lossPercent) else { return }
                        self.world.after(self.delay) {
                            guard !self.isCut(name, from) else { return }
                            answer(outcome)
                        }
                    }
                }
            }
        }
    }
}
