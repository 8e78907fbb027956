import NIOCore
import ServiceSupport
import Sharding

/// From the target of a request to the shard that its key belongs to.
let keyBenchmarks = [
    Benchmark("hash slot of a key") {
        let keys = Fixture.keys
        return { number in
            keys[number & Fixture.keyMask].withUnsafeReadableBytes { keep(HashSlot(key: $0)) }
        }
    },
    Benchmark("topology look-up, 64 shards") {
        let topology = try Fixture.topology(shards: 64)
        return { number in keep(topology.position(of: HashSlot(rawValue: UInt16(truncatingIfNeeded: number & 0x3FFF))))
        }
    },
    Benchmark("ring of 64 shards", iterations: 2) {
        let names = (0..<64).map { "shard-\($0)" }
        return { _ in keep(ConsistentHashRing.assign(shards: names)) }
    },
    Benchmark("key target, plain") {
        let target = Array("/kv/key-00012345".utf8)
        return { _ in
            try target.withUnsafeBytes { bytes in
                guard let place = KeyTarget(bytes) else { return }
                keep(try place.withKey(in: bytes) { $0.count })
            }
        }
    },
    Benchmark("key target, percent-encoded") {
        let target = Array("/kv/a%20key%2Fwith%20%C3%A4".utf8)
        return { _ in
            try target.withUnsafeBytes { bytes in
                guard let place = KeyTarget(bytes) else { return }
                keep(try place.withKey(in: bytes) { $0.count })
            }
        }
    },
    Benchmark("query of a routed request") {
        let target = Array("/kv/key-00012345?hops=1&consistency=leader".utf8)
        return { _ in
            try target.withUnsafeBytes { bytes in
                guard let place = KeyTarget(bytes) else { return }
                keep(try RoutedQuery(place.query, in: bytes).hops)
            }
        }
    },
]
