import Core
import Logging
import NIOCore
import Shard
import Synchronization

extension Node {
    /// How often the clock is looked at, and what databases do in the background, and noted how far logs are on the disk.
    private static let lookInterval = TimeAmount.seconds(1)

    /// Looks at what fails without a request that would notice, again and again until it is cancelled.
    func scheduleLooking(on eventLoop: any EventLoop) -> RepeatedTask {
        eventLoop.scheduleRepeatedAsyncTask(initialDelay: Node.lookInterval, delay: Node.lookInterval) { _ in
            self.clockWatch.look()
            let done = self.upkeep.run(on: eventLoop) {
                for replica in self.view.openReplicas.values {
                    replica.lookAtBackgroundWork()
                    replica.keepSyncedMark()
                }
            }
            // If the threads are busy, the next round will do; a failure would end the rounds.
            return done.recover { _ in }
        }
    }
}

/// Says when the wall clock jumps ahead and is not followed, and when it is followed again.
final class ClockWatch: Sendable {
    private let clock: BoundedClock
    private let logger: Logger
    private let said = Mutex<(jumps: UInt64, isAhead: Bool)>((0, false))

    init(_ clock: BoundedClock, logger: Logger) {
        self.clock = clock
        self.logger = logger
    }

    func look() {
        let (ahead, jumps) = clock.unfollowed
        let (isNew, isOver) = said.withLock { said in
            defer { said = (jumps, ahead > 0) }
            return (jumps > said.jumps, ahead == 0 && (said.isAhead || jumps > said.jumps))
        }
        let minutes = ClockBound.settleMilliseconds / 60_000
        if isNew {
            logger.warning(
                """
                this machine's clock has jumped ahead, and versions and expiries do not follow before it has stood there \
                for \(minutes) minutes: check its time service
                """, metadata: ["ahead_ms": "\(ahead)", "jumps": "\(jumps)"])
        }
        if isOver {
            logger.notice("versions and expiries follow this machine's clock", metadata: ["jumps": "\(jumps)"])
        }
    }

    /// Milliseconds; 0 while the clock is followed.
    var ahead: UInt64 { clock.unfollowed.milliseconds }
    var jumps: UInt64 { clock.unfollowed.jumps }
}
