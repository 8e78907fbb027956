import Core
import Testing

@testable import Configuration

/// Faults at which the TOML library would end the process.
@Suite struct TOMLAssertionTests {
    @Test(arguments: [
        ("a = [}]", 1), ("a = [ # [1]\n\n}]", 3), ("a = ['}', '''\n''', }]", 2), (#"b = "[\"}""# + "\na = [1,}]", 2),
    ])
    func missingValues(toml: String, line: Int) {
        let error = #expect(throws: KVError.self) { try ShardingFile(toml: toml + "\n") }
        #expect(error?.message == "sharding.toml:\(line): not valid TOML: a value is missing before \"}\"")
    }

    /// What only looks like it.
    @Test(arguments: [
        "a = '[}'", "# [}", #"a = "[,}""#, #"a = "\"[}""#, "a = [{b = 1}]", "a = [\n'[', {},\n]",
        #"a = """\"" [}" [}""""#,
    ])
    func noMissingValues(toml: String) {
        let error = #expect(throws: KVError.self) { try ShardingFile(toml: toml + "\n") }
        #expect(error?.message.contains("not valid TOML") == false, "\(error?.message ?? "")")
    }
}
