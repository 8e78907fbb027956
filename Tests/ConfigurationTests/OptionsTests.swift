import ArgumentParser
import Core
import Logging
import Observability
import Testing

@testable import Configuration

@Suite struct OptionsTests {
    private func settings(_ arguments: [String], _ environment: [String: String] = [:]) throws -> CommonSettings {
        try CommonOptions.parse(arguments).settings(defaultPort: 8_080, reader: OptionReader(environment: environment))
    }

    @Test func defaults() throws {
        let settings = try settings([])
        #expect(settings.configPath == "sharding.toml")
        #expect(settings.listen == NodeAddress(host: "127.0.0.1", port: 8_080))
        #expect(settings.logFormat == .text)
        #expect(settings.logLevel == .info)
        #expect(settings.threads >= 1)
    }

    @Test func everyFlagAndItsVariableSayTheSame() throws {
        let expected = CommonSettings(
            configPath: "a.toml", listen: NodeAddress(host: "0.0.0.0", port: 9), insecure: true, logFormat: .json,
            logLevel: .debug, threads: 3)
        let flags = try settings([
            "--config", "a.toml", "--listen", "0.0.0.0:9", "--log-format", "json", "--log-level", "debug", "--threads",
            "3", "--insecure",
        ])
        let variables = try settings(
            [],
            [
                "DISTRIBKV_CONFIG": "a.toml", "DISTRIBKV_LISTEN": "0.0.0.0:9", "DISTRIBKV_LOG_FORMAT": "json",
                "DISTRIBKV_LOG_LEVEL": "debug", "DISTRIBKV_THREADS": "3", "DISTRIBKV_INSECURE": "true",
            ])
        #expect(flags == expected)
        #expect(variables == expected)
    }

    @Test func aFlagWinsOverItsVariableAndAnEmptyVariableIsNone() throws {
        #expect(try settings(["--config", "flag"], ["DISTRIBKV_CONFIG": "variable"]).configPath == "flag")
        #expect(try settings([], ["DISTRIBKV_CONFIG": ""]).configPath == "sharding.toml")
        // A wrong variable does not matter where the flag is given.
        #expect(try settings(["--threads", "2"], ["DISTRIBKV_THREADS": "many"]).threads == 2)
    }

    @Test(
        arguments: [
            (
                ["--listen", "nowhere"], [:],
                "--listen: \"nowhere\" is not allowed; allowed: host:port with a port from 0 to 65535"
            ),
            (
                [], ["DISTRIBKV_LISTEN": ":1"],
                "DISTRIBKV_LISTEN: \":1\" is not allowed; allowed: host:port with a port from 0 to 65535"
            ),
            (["--log-format", "xml"], [:], "--log-format: \"xml\" is not allowed; allowed: text, json"),
            (
                [], ["DISTRIBKV_LOG_LEVEL": "loud"],
                "DISTRIBKV_LOG_LEVEL: \"loud\" is not allowed; allowed: trace, debug, info, notice, warning, error, critical"
            ),
            (["--threads", "0"], [:], "--threads: \"0\" is not allowed; allowed: an integer from 1 to 1024"),
            (
                [], ["DISTRIBKV_THREADS": "1.5"],
                "DISTRIBKV_THREADS: \"1.5\" is not allowed; allowed: an integer from 1 to 1024"
            ),
            (
                [], ["DISTRIBKV_INSECURE": "maybe"],
                "DISTRIBKV_INSECURE: \"maybe\" is not allowed; allowed: true or false"
            ),
            (
                ["--listen", "10.0.0.1:80"], [:],
                "refusing to listen on 10.0.0.1:80: anyone who reaches it could read and write; use a loopback address such as 127.0.0.1:80, or say --insecure"
            ),
            (
                ["--listen", "[::]:80"], ["DISTRIBKV_INSECURE": "false"],
                "refusing to listen on [::]:80: anyone who reaches it could read and write; use a loopback address such as 127.0.0.1:80, or say --insecure"
            ),
        ] as [([String], [String: String], String)])
    func wrongValuesAreRefused(arguments: [String], environment: [String: String], message: String) {
        let error = #expect(throws: KVError.self) { try settings(arguments, environment) }
        #expect(error?.code == .invalidArgument)
        #expect(error?.message == message)
    }

    @Test func variablesAreNamedAfterFlags() {
        #expect(OptionReader.variable(of: "--log-format") == "DISTRIBKV_LOG_FORMAT")
        #expect(OptionReader.variable(of: "--config") == "DISTRIBKV_CONFIG")
    }

    @Test func failuresAreOneLine() {
        #expect(FailureLine.text(of: KVError(.notFound, "a\nb\r\nc")) == "a b c")
        #expect(
            FailureLine.text(of: KVError(.notFound, "outer", cause: KVError(.notFound, "inner"))) == "outer (inner)")
    }
}
