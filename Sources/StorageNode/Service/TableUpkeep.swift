import NIOCore
import Shard

extension Node {
    /// How often old tables are looked for, in which something may have expired.
    private static let rewriteInterval = TimeAmount.hours(1)

    /// How often it is noted how far the logs are on disk.
    private static let markInterval = TimeAmount.seconds(1)

    /// Notes how far the logs are, again and again until it is cancelled.
    func scheduleMarks(on eventLoop: any EventLoop) -> RepeatedTask {
        eventLoop.scheduleRepeatedAsyncTask(initialDelay: Node.markInterval, delay: Node.markInterval) { _ in
            let done = self.upkeep.run(on: eventLoop) {
                for replica in self.view.openReplicas.values { replica.keepSyncedMark() }
            }
            return done.recover { _ in }
        }
    }

    /// Has old tables rewritten, again and again until it is cancelled.
    func scheduleRewriting(on eventLoop: any EventLoop) -> RepeatedTask {
        eventLoop.scheduleRepeatedAsyncTask(initialDelay: Node.rewriteInterval, delay: Node.rewriteInterval) { _ in
            let done = self.snapshotWork.run(on: eventLoop) {
                for replica in self.view.openReplicas.values { replica.rewriteOldTables() }
            }
            // Where the threads are busy, the next round will do; a failure would end the rounds.
            return done.recover { _ in }
        }
    }
}
