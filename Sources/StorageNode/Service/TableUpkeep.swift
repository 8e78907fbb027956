import NIOCore
import Shard

extension Node {
    /// How often old tables are looked for, in which something may have expired.
    private static let rewriteInterval = TimeAmount.hours(1)

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
