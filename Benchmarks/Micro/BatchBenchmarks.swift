import Core
import NIOCore
import Wire

/// The lines of `POST /batch`, 100 operations at once.
let batchBenchmarks = [
    Benchmark("lines of 100 puts read", iterations: 20) {
        var body = ByteBuffer()
        for place in 0..<100 {
            BatchOperation(key: Fixture.keys[place], action: .put(Fixture.value, ttlMilliseconds: nil))
                .write(into: &body)
        }
        return { _ in keep(try BatchOperation.read(body, countMax: 100).count) }
    },
    Benchmark("lines of 100 results written", iterations: 50) {
        var buffer = ByteBuffer()
        return { number in
            buffer.clear()
            for place in 0..<100 {
                BatchResult.written(Version(rawValue: UInt64(number + place))).write(into: &buffer)
            }
            keep(buffer)
        }
    },
]
