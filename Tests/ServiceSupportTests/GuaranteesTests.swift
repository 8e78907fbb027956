import Core
import HTTPServer
import NIOHTTP1
import ServiceSupport
import Testing
import Wire

@Suite struct GuaranteesTests {
    private func guarantees(_ query: String) throws -> Guarantees { try Guarantees(QueryParameters(query[...])) }

    /// As a router reads them, from the bytes of the target.
    private func routed(_ query: String) throws -> Guarantees {
        let request = HTTPRequest(method: .GET, target: "/kv/a?\(query)")
        let result: Result<Guarantees, Problem> = request.withTargetBytes { bytes in
            do throws(Problem) {
                return .success(try RoutedQuery(KeyTarget(bytes)?.query, in: bytes).guarantees)
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    @Test func readsEverything() throws {
        for read in [guarantees, routed] {
            let writes = try read("ack=quorum&timeout=1500ms")
            #expect(writes.ack == .quorum)
            #expect(writes.timeoutMilliseconds == 1_500)
            let reads = try read("max_staleness=2m&consistency=leader&hops=1&proxy")
            #expect(reads.consistency == .leader)
            #expect(reads.maxStalenessMilliseconds == 120_000)
            #expect(try read("x=1&acks=all&ac=1&=3&&") == Guarantees())
            #expect(try read("ack=1").ack == .leader)
            #expect(try read("ack=12").ack == .replicas(12))
            #expect(try read("timeout=60s").timeoutMilliseconds == 60_000)
            #expect(try read("consistency=eventua%6C").consistency == .eventual)
            #expect(try read("max_staleness=0ms").maxStalenessMilliseconds == 0)
        }
    }

    @Test(arguments: [
        "ack", "ack=", "ack=Leader", "ack=+1", "ack=0", "ack=all,quorum", "timeout", "timeout=0ms", "timeout=60001ms",
        "timeout=1.5s", "timeout=99999999999999999999s", "consistency=Leader", "consistency", "max_staleness=1",
        "max_staleness=1w", "max_staleness=%zz",
    ])
    func refuses(query: String) {
        for read in [guarantees, routed] {
            do {
                _ = try read(query)
                Issue.record("\(query) is taken")
            } catch let problem as Problem {
                #expect(problem.kind == .badRequest)
            } catch {
                Issue.record("\(error)")
            }
        }
    }

    @Test func belongToReadsOrToWrites() throws {
        #expect(throws: Problem.self) { try guarantees("ack=all").check(isRead: true) }
        #expect(throws: Problem.self) { try guarantees("timeout=1s").check(isRead: true) }
        #expect(throws: Problem.self) { try guarantees("consistency=eventual").check(isRead: false) }
        #expect(throws: Problem.self) { try guarantees("max_staleness=1s").check(isRead: false) }
        try guarantees("ack=all&timeout=1s").check(isRead: false)
        try guarantees("consistency=leader&max_staleness=1s").check(isRead: true)
    }
}
