import ArgumentParser
import Core
import FoundationEssentials
import Testing

@testable import Configuration

/// Both groups of flags, as the command has them.
private struct Flags: ParsableArguments {
    @OptionGroup var common: CommonOptions
    @OptionGroup var node: StorageNodeOptions
}

private func settings(
    _ arguments: [String], _ environment: [String: String] = [:]
) throws -> StorageNodeSettings {
    let flags = try Flags.parse(arguments)
    return try flags.node.settings(common: flags.common, reader: OptionReader(environment: environment))
}

private func refusal(_ arguments: [String], _ environment: [String: String] = [:]) -> String? {
    let error = #expect(throws: KVError.self) { try settings(arguments, environment) }
    return error?.message
}

private func address(_ text: String) throws -> NodeAddress { try #require(NodeAddress(text)) }

@Suite struct StorageNodeOptionsTests {
    @Test func everyFlagAndItsVariableSayTheSame() throws {
        let flags = try settings([
            "--data-dir", "d", "--advertise", "n1:7001", "--join", "http://r1:8080,r2:8080", "--shard", "a", "--shard",
            "b, c,a",
        ])
        let variables = try settings(
            [],
            [
                "DISTRIBKV_DATA_DIR": "d", "DISTRIBKV_ADVERTISE": "n1:7001",
                "DISTRIBKV_JOIN": "http://r1:8080/ ,r2:8080,r1:8080", "DISTRIBKV_SHARD": "a,b,c",
            ])
        #expect(flags == variables)
        #expect(flags.dataDirectory == "d")
        #expect(try flags.advertise == address("n1:7001"))
        #expect(
            try flags.join
                == JoinSettings(seeds: [address("r1:8080"), address("r2:8080")], shards: ["a", "b", "c"]))
    }

    @Test func aNodeIsKnownByItsListenAddressUnlessItAdvertisesAnother() throws {
        #expect(try settings(["--data-dir", "d"]).advertise == address("127.0.0.1:7001"))
        #expect(try settings(["--data-dir", "d", "--listen", "127.0.0.2:9"]).advertise == address("127.0.0.2:9"))
    }

    @Test(arguments: [
        ([], "--data-dir is missing; name the directory that is to hold this node's data"),
        (
            ["--data-dir", "d", "--advertise", "n1:0"],
            "--advertise: \"n1:0\" is not allowed; allowed: host:port with a port from 1 to 65535"
        ),
        (
            ["--data-dir", "d", "--shard", "a"],
            "--shard goes with --join: name a router or node of the cluster, as --join http://127.0.0.1:8080"
        ),
        (
            ["--data-dir", "d", "--join", "http://r:1"],
            "--join needs --shard: name the shard that is to have one more replica; kv status lists them"
        ),
        (
            ["--data-dir", "d", "--join", "r", "--shard", "a"],
            "--join: \"r\" is not allowed; allowed: the address of a router or node as http://host:port, several with "
                + "commas"
        ),
        (
            ["--data-dir", "d", "--join", "https://r:1", "--shard", "a"],
            "--join: \"https://r:1\" is not allowed; allowed: the address of a router or node as http://host:port, "
                + "several with commas"
        ),
        (
            ["--data-dir", "d", "--join", " , ", "--shard", "a"],
            "--join: \" , \" is not allowed; allowed: the address of a router or node as http://host:port, several "
                + "with commas"
        ),
        (
            ["--data-dir", "d", "--listen", "127.0.0.1:0", "--join", "r:1", "--shard", "a"],
            "other nodes cannot reach this one as 127.0.0.1:0: say with --advertise host:port how they do"
        ),
        (
            ["--data-dir", "d", "--listen", "0.0.0.0:7", "--insecure", "--join", "r:1", "--shard", "a"],
            "other nodes cannot reach this one as 0.0.0.0:7: say with --advertise host:port how they do"
        ),
        (
            ["--data-dir", "d", "--advertise", "[::]:7", "--join", "r:1", "--shard", "a"],
            "other nodes cannot reach this one as [::]:7: say with --advertise host:port how they do"
        ),
    ])
    func wrongFlagsAreRefused(arguments: [String], message: String) {
        #expect(refusal(arguments) == message)
    }

    // MARK: sharding.toml

    @Test func whichFileIsRead() throws {
        #expect(try settings(["--data-dir", "d"]).config == .optional("sharding.toml"))
        #expect(try settings(["--data-dir", "d", "--config", "a"]).config == .required("a"))
        let join = ["--data-dir", "d", "--join", "r:1", "--shard", "a"]
        #expect(try settings(join).config == .absent)
        #expect(try settings(join, ["DISTRIBKV_CONFIG": "a"]).config == .required("a"))
    }

    @Test func aFileThatIsGivenHasToBeThere() throws {
        try withTemporaryDirectory { directory throws in
            let path = "\(directory)/none.toml"
            var settings = try settings(["--data-dir", directory, "--config", path])
            let error = #expect(throws: KVError.self) { try settings.loadConfig() }
            #expect(
                error?.message
                    == "\(path): cannot be read: No such file or directory; name a readable sharding.toml with --config"
            )
            settings.config = .optional(path)
            #expect(try settings.loadConfig() == nil)
            settings.config = .absent
            #expect(try settings.loadConfig() == nil)

            // One that is there and wrong is an error in any case.
            try Data("[[shards".utf8).write(to: URL(filePath: path))
            settings.config = .optional(path)
            #expect(throws: KVError.self) { try settings.loadConfig() }
        }
    }
}

/// What a node is started with need not be said again.
@Suite struct NodeRecordTests {
    /// Runs `body` with the data directory of a node that has started with `arguments`.
    private func withNode(
        _ arguments: [String], _ body: ([String]) throws -> Void
    ) throws {
        try withTemporaryDirectory { directory throws in
            let first = try settings(["--data-dir", directory] + arguments)
            try PersistedNode(directory: directory).save(first.record)
            try body(["--data-dir", directory])
        }
    }

    @Test func theNextStartNeedsTheDirectoryOnly() throws {
        let flags = [
            "--listen", "0.0.0.0:7009", "--insecure", "--advertise", "n9:7009", "--config", "/etc/sharding.toml",
        ]
        try withNode(flags) { directory throws in
            let next = try settings(directory)
            #expect(try next.common.listen == address("0.0.0.0:7009"))
            #expect(try next.advertise == address("n9:7009"))
            #expect(next.config == .required("/etc/sharding.toml"))
            #expect(next.join == nil)
            #expect(next.record == (try settings(directory + flags).record))
        }
    }

    @Test func aRelativePathIsKeptAsAnAbsoluteOne() throws {
        try withNode(["--config", "a.toml"]) { directory throws in
            let path = "\(FileManager.default.currentDirectoryPath)/a.toml"
            #expect(try settings(directory).config == .required(path))
        }
    }

    @Test func aNodeThatJoinedWithoutAFileStaysWithoutOne() throws {
        try withNode(["--join", "r:1", "--shard", "a"]) { directory throws in
            #expect(try settings(directory).config == .absent)
            #expect(try settings(directory + ["--config", "a"]).config == .required("a"))
        }
        try withNode([]) { directory throws in
            #expect(try settings(directory).config == .optional("sharding.toml"))
        }
    }

    @Test func aFlagWinsOverTheRecord() throws {
        try withNode(["--listen", "127.0.0.1:7009", "--advertise", "n9:7009"]) { directory throws in
            let moved = try settings(directory + ["--listen", "127.0.0.1:7010"])
            #expect(try moved.common.listen == address("127.0.0.1:7010"))
            #expect(try moved.advertise == address("n9:7009"))
        }
    }

    @Test func anotherIdentityIsRefused() throws {
        try withNode(["--listen", "127.0.0.1:7009"]) { directory throws in
            let path = directory[1]
            #expect(
                refusal(directory + ["--advertise", "n9:7009"])
                    == "\(path) belongs to node 127.0.0.1:7009, not n9:7009: leave --advertise away or name another "
                    + "--data-dir; if the topology names it n9:7009 now, remove \(path)/node.json")
            #expect(
                refusal(directory + ["--listen", "127.0.0.1:7010"])
                    == "\(path) belongs to node 127.0.0.1:7009, which would not be reached on 127.0.0.1:7010: leave "
                    + "--listen away or name another --data-dir; if 127.0.0.1:7009 leads to 127.0.0.1:7010, say "
                    + "--advertise 127.0.0.1:7009")
            // As it says.
            let forwarded = try settings(
                directory + ["--listen", "127.0.0.1:7010", "--advertise", "127.0.0.1:7009"])
            #expect(try forwarded.advertise == address("127.0.0.1:7009"))
            #expect(try settings(directory + ["--listen", "127.0.0.1:7009"]).advertise == address("127.0.0.1:7009"))
        }
    }

    /// What was allowed for one address is not allowed for another.
    @Test func insecureIsKeptForItsAddressAlone() throws {
        try withNode(["--listen", "10.0.0.1:7009", "--insecure"]) { directory throws in
            #expect(try settings(directory).common.insecure)
            let message = refusal(directory + ["--listen", "10.0.0.2:7009", "--advertise", "10.0.0.1:7009"])
            #expect(message?.hasPrefix("refusing to listen on 10.0.0.2:7009") == true)
        }
    }

    @Test func whatIsSavedIsLoadedAndSavingItAgainWritesNothing() throws {
        try withTemporaryDirectory { directory throws in
            let file = PersistedNode(directory: directory)
            #expect(try file.load() == nil)
            #expect(try PersistedNode(directory: directory + "/none").load() == nil)
            let record = try NodeRecord(
                advertise: address("n9:7009"), listen: address("[::1]:7009"), insecure: false, config: nil)
            try file.save(record)
            #expect(try file.load() == record)
            let text = try String(contentsOf: URL(filePath: file.path), encoding: .utf8)
            #expect(
                text.split(whereSeparator: \.isWhitespace).joined()
                    == #"{"advertise":"n9:7009","insecure":false,"listen":"[::1]:7009"}"#)

            let number = try FileManager.default.attributesOfItem(atPath: file.path)[.systemFileNumber] as? UInt64
            try file.save(record)
            let after = try FileManager.default.attributesOfItem(atPath: file.path)[.systemFileNumber] as? UInt64
            #expect(number != nil && number == after)
            #expect(try FileManager.default.contentsOfDirectory(atPath: directory) == ["node.json"])
        }
    }

    @Test(arguments: ["", "{}", "[]", "{\"advertise\":\"nowhere\"}"])
    func aDamagedRecordSaysWhatToDo(contents: String) throws {
        try withTemporaryDirectory { directory throws in
            let file = PersistedNode(directory: directory)
            try LocalFile.replace(path: file.path, with: Array(contents.utf8))
            let error = #expect(throws: KVError.self) { try file.load() }
            #expect(error?.code == .corrupted)
            #expect(
                error?.message
                    == "\(file.path): not the record of a node; remove it, and start once more with --listen and "
                    + "--config")
            // With its message alone: the parser's own would only confuse.
            #expect(error?.cause == nil)
        }
    }
}
