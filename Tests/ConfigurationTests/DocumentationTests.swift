import ArgumentParser
import Core
import FoundationEssentials
import Sharding
import Testing

@testable import Configuration

/// What the documentation says about keys and flags is what the code does.
@Suite struct DocumentationTests {
    private let root = #filePath.split(separator: "/").dropLast(3).reduce("") { $0 + "/" + $1 }

    private func text(_ path: String) throws -> String {
        try String(contentsOf: URL(filePath: "\(root)/\(path)"), encoding: .utf8)
    }

    @Test func everyKeyStandsInTheReferenceWithItsDefault() throws {
        let document = try text("docs/configuration.md")
        let rows = document.split(separator: "\n").filter { $0.hasPrefix("| `") }
        for setting in try ShardingFile.reference() {
            if setting.isTable {
                let hasHeading =
                    document.contains("\n### [\(setting.key)]") || document.contains("\n### [[\(setting.key)]]")
                #expect(hasHeading, "docs/configuration.md lacks [\(setting.key)]")
                continue
            }
            let shown = setting.defaultText.map { "`\($0)`" } ?? "required"
            let row = rows.first { $0.hasPrefix("| `\(setting.key)` | \(shown) |") }
            #expect(row != nil, "docs/configuration.md lacks: | `\(setting.key)` | \(shown) | …")
        }
    }

    /// The other way round: no row describes a key, flag or variable that is not there.
    @Test func theReferenceNamesNothingElse() throws {
        let document = try text("docs/configuration.md")
        let keys = Set(try ShardingFile.reference().map(\.key))
        let help = CommonOptions.helpMessage(columns: 400) + StorageNodeOptions.helpMessage(columns: 400)
        for row in document.split(separator: "\n") where row.hasPrefix("| `") {
            let name = row.dropFirst(3).prefix { $0 != "`" && $0 != " " }
            if name.hasPrefix("--") {
                #expect(help.contains("\(name) "), "no flag \(name)")
                #expect(row.contains("`\(OptionReader.variable(of: String(name)))`"), "\(name): variable missing")
            } else {
                #expect(keys.contains(String(name)), "no key \(name)")
            }
        }
    }

    @Test func everyFlagStandsInTheReference() throws {
        let document = try text("docs/configuration.md")
        let help = CommonOptions.helpMessage(columns: 400) + StorageNodeOptions.helpMessage(columns: 400)
        let flags = help.split(whereSeparator: { " \n[].,".contains($0) }).filter {
            $0.hasPrefix("--") && $0 != "--help"
        }
        #expect(Set(flags).count >= 8)
        for flag in Set(flags) {
            // Not the call itself: a failure would print the whole page.
            let isThere = document.contains("\n| `\(flag)")
            #expect(isThere, "docs/configuration.md lacks \(flag)")
        }
    }

    @Test func theDemoClusterIsValid() throws {
        let file = try ShardingFile.load(path: "\(root)/sharding.toml")
        #expect(file.shards.count == 2)
        #expect(file.shards.map(\.followers.count) == [1, 1])
        let topology = try file.topology()
        #expect(topology.nodes.map(\.description) == ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"])
    }
}
