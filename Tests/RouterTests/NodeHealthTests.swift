import NIOCore
import TestSupport
import Testing

@testable import RouterService

@Suite struct NodeHealthTests {
    private let now = NIODeadline.uptimeNanoseconds(1_000)

    @Test func isAliveUntilProvenDead() {
        var health = NodeHealth()
        #expect(health.isAlive)
        #expect(health.isPreferredForReads)
        #expect(health.failed("refused") == false)
        #expect(health.isAlive)
        #expect(health.failed("refused") == true)
        #expect(!health.isAlive)
        #expect(!health.isPreferredForReads)
        #expect(health.lastError == "refused")
        #expect(health.failed("refused again") == false)
    }

    @Test func oneAnswerRevives() {
        var health = NodeHealth()
        for _ in 0..<10 { _ = health.failed("refused") }
        #expect(health.answered(ready: true, epoch: 3, at: now) == true)
        #expect(health.isAlive)
        #expect(health.epoch == 3)
        #expect(health.lastAnswer == now)
        #expect(health.lastError == nil)
        // And it takes as many failures as before to lose that.
        #expect(health.failed("refused") == false)
        #expect(health.isAlive)
    }

    @Test func anAnswerInBetweenForgives() {
        var health = NodeHealth()
        for _ in 0..<100 {
            _ = health.failed("refused")
            _ = health.answered(ready: true, epoch: nil, at: now)
        }
        #expect(health.isAlive)
    }

    @Test func notReadyIsAliveButNotPreferred() {
        var health = NodeHealth()
        #expect(health.answered(ready: false, epoch: nil, at: now) == true)
        #expect(health.isAlive)
        #expect(!health.isPreferredForReads)
        #expect(health.answered(ready: false, epoch: nil, at: now) == false)
        #expect(health.answered(ready: true, epoch: nil, at: now) == true)
        #expect(health.isPreferredForReads)
    }

    @Test func anAnswerWithoutEpochKeepsTheLastOne() {
        var health = NodeHealth()
        _ = health.answered(ready: true, epoch: 7, at: now)
        _ = health.answered(ready: true, epoch: nil, at: now)
        #expect(health.epoch == 7)
    }

    /// Against the definition: dead exactly when the last events are that many failures, whatever came before.
    @Test func anySequenceOfEvents() {
        let seed = UInt64.random(in: .min ... .max)
        var random = SeededGenerator(seed: seed)
        for _ in 0..<200 {
            var health = NodeHealth()
            var events: [Bool] = []
            for _ in 0..<50 {
                let answers = Bool.random(using: &random)
                let before = health.condition
                events.append(answers)
                let changed =
                    answers
                    ? health.answered(ready: Bool.random(using: &random), epoch: nil, at: now) : health.failed("x")
                let dead =
                    events.count >= NodeHealth.failuresUntilDead
                    && events.suffix(NodeHealth.failuresUntilDead).allSatisfy { !$0 }
                #expect(health.isAlive == !dead, "seed \(seed), events \(events)")
                #expect(changed == (health.condition != before), "seed \(seed), events \(events)")
            }
        }
    }
}
