import Foundation
import Testing

/// Whole clusters over a simulated network, disk and clock, by seeded random schedules.
///
/// `DISTRIBKV_SIMULATION_RUNS` sets how many schedules; `DISTRIBKV_SIMULATION_SEED` replays one and prints what
/// happened in it.
@Suite struct SimulationTests {
    private static let environment = ProcessInfo.processInfo.environment
    private static let runs = environment["DISTRIBKV_SIMULATION_RUNS"].flatMap(Int.init) ?? 10_000
    private static let replayed = environment["DISTRIBKV_SIMULATION_SEED"].flatMap { UInt64($0) }
    private static let parts = 4
    /// Of every run, so that schedules differ from one day to the next.
    private static let base = UInt64.random(in: 0...UInt64.max)

    private static func report(_ seed: UInt64) throws -> String {
        let simulation = try Simulation(seed: seed, keepsNotes: true)
        let outcome = simulation.run()
        return simulation.notes.joined(separator: "\n") + "\nseed \(seed): \(outcome)"
    }

    @Test(arguments: 0..<parts) func everyScheduleKeepsTheInvariants(part: Int) async throws {
        if let seed = Self.replayed {
            guard part == 0 else { return }
            print(try Self.report(seed))
            #expect(try Simulation(seed: seed).run().isGood)
            return
        }
        if part == 0 { print("simulation: \(Self.runs) schedules from seed \(Self.base)") }
        var batches = 0
        var rebuilds = 0
        var failovers = 0
        for run in stride(from: part, to: Self.runs, by: Self.parts) {
            // Other tests share the threads.
            await Task.yield()
            let seed = Self.base &+ UInt64(run)
            let outcome = try Simulation(seed: seed).run()
            batches += outcome.batches
            rebuilds += outcome.rebuilds
            failovers += outcome.failovers
            guard outcome.isGood else {
                print(try Self.report(seed))
                Issue.record("seed \(seed): \(outcome); replay it with DISTRIBKV_SIMULATION_SEED=\(seed)")
                return
            }
        }
        // Schedules in which nothing happens would prove nothing.
        #expect(batches > Self.runs / Self.parts * 10)
        if Self.runs >= 1_000 { #expect(failovers > 0) }
    }

    @Test func theSameSeedIsTheSameSchedule() throws {
        #expect(try Self.report(7) == Self.report(7))
        #expect(try Self.report(7) != Self.report(8))
    }

    /// The invariants are worth something: each defect put in on purpose is found, within so many schedules.
    @Test(arguments: Simulation.Sabotage.allCases) func findsEveryDefectPutInOnPurpose(sabotage: Simulation.Sabotage)
        async throws
    {
        for seed in 0..<Self.sabotagedRunsMax {
            await Task.yield()
            let outcome = try Simulation(seed: seed, sabotage: sabotage).run()
            guard outcome.isGood else { return print("\(sabotage) found with seed \(seed): \(outcome)") }
        }
        Issue.record("\(sabotage) was not found in \(Self.sabotagedRunsMax) schedules")
    }

    private static let sabotagedRunsMax: UInt64 = 3_000
}
