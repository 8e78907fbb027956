import CEpoll
import Glibc
import Sharding
import Synchronization

/// What the threads of one run share.
final class Shared: Sendable {
    /// The run is to end now.
    let isStopped = Atomic<Bool>(false)
    /// A node has shown a newer topology, or redirected.
    let wantsTopology = Atomic<Bool>(false)
    /// Rises with each new topology.
    let topologyGeneration = Atomic<Int>(0)
    private let currentTopology: Mutex<Topology?>
    /// Of writes that are verified: rising, also from run to run.
    let sequence: Atomic<UInt64>
    /// Operations that have begun, where the run ends with a number of them.
    let begun = Atomic<UInt64>(0)
    /// The next key to insert, or to load.
    let nextKey: Atomic<UInt64>
    let table: VerificationTable?
    let inserts: AcknowledgedInserts
    let timeline: Timeline

    /// - Parameter isLoad: keys from 0 on are written; else they exist.
    init(_ settings: LoadSettings, topology: Topology?, isLoad: Bool) {
        currentTopology = Mutex(topology)
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        // Microseconds since 1970: above those of earlier runs, as none makes a million writes a second.
        sequence = Atomic(UInt64(now.tv_sec) * 1_000_000 + UInt64(now.tv_nsec) / 1_000)
        nextKey = Atomic(isLoad ? 0 : settings.records)
        table =
            settings.isVerified
            ? VerificationTable(records: settings.records, inserts: LoadSettings.insertsMax) : nil
        inserts = AcknowledgedInserts(first: settings.records)
        timeline = Timeline(threads: settings.threads)
    }

    var topology: Topology? { currentTopology.withLock { $0 } }

    func adopt(_ topology: Topology) {
        currentTopology.withLock { $0 = topology }
        topologyGeneration.add(1, ordering: .releasing)
    }
}

/// Keys below which all inserts have ended: reads choose among those.
///
/// YCSB's AcknowledgedCounterGenerator.
final class AcknowledgedInserts: Sendable {
    private let state: Mutex<State>
    /// Keys from 0 to below this exist.
    let bound: Atomic<UInt64>

    private struct State {
        var bound: UInt64
        /// Ended, and above one that has not. At most as many as are under way.
        var ahead: Set<UInt64> = []
    }

    init(first: UInt64) {
        state = Mutex(State(bound: first))
        bound = Atomic(first)
    }

    /// The insert of `key` has ended.
    func end(_ key: UInt64) {
        state.withLock { state in
            guard key == state.bound else {
                state.ahead.insert(key)
                return
            }
            state.bound += 1
            while state.ahead.remove(state.bound) != nil { state.bound += 1 }
            bound.store(state.bound, ordering: .releasing)
        }
    }
}
