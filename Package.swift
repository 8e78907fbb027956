// swift-tools-version: 6.1
import PackageDescription

let strict: [SwiftSetting] =
    Context.environment["DISTRIBKV_WARNINGS_AS_ERRORS"] == nil ? [] : [.unsafeFlags(["-warnings-as-errors"])]

let settings: [SwiftSetting] =
    [
        .enableUpcomingFeature("InternalImportsByDefault"),
        .enableUpcomingFeature("MemberImportVisibility"),
        .enableUpcomingFeature("ExistentialAny"),
    ] + strict

func library(
    _ name: String, _ path: String, _ dependencies: [Target.Dependency] = [], resources: [Resource] = []
) -> Target {
    .target(
        name: name, dependencies: dependencies, path: "Sources/\(path)", resources: resources, swiftSettings: settings)
}
func program(_ name: String, _ path: String, _ dependencies: [Target.Dependency]) -> Target {
    .executableTarget(name: name, dependencies: dependencies, path: "Sources/\(path)", swiftSettings: settings)
}
func tests(_ name: String, _ dependencies: [Target.Dependency], resources: [Resource] = []) -> Target {
    .testTarget(
        name: name, dependencies: dependencies, path: "Tests/\(name)", resources: resources,
        swiftSettings: settings)
}

let nioCore: Target.Dependency = .product(name: "NIOCore", package: "swift-nio")
let nioPosix: Target.Dependency = .product(name: "NIOPosix", package: "swift-nio")
let nioHTTP1: Target.Dependency = .product(name: "NIOHTTP1", package: "swift-nio")
let nioEmbedded: Target.Dependency = .product(name: "NIOEmbedded", package: "swift-nio")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let lifecycle: Target.Dependency = .product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let signals: Target.Dependency = .product(name: "UnixSignals", package: "swift-service-lifecycle")
let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let toml: Target.Dependency = .product(name: "TOMLKit", package: "TOMLKit")

let histogram: Target.Dependency = .product(name: "Histogram", package: "hdrhistogram-swift")

let package = Package(
    name: "distribKV",
    platforms: [.macOS(.v15)],
    products: [
        .library(name: "DistribKVClient", targets: ["DistribKVClient"]),
        .executable(name: "router", targets: ["router"]),
        .executable(name: "storage-node", targets: ["storage-node"]),
        .executable(name: "replicator", targets: ["replicator"]),
        .executable(name: "kv", targets: ["kv"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/LebJe/TOMLKit", from: "0.6.0"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
    ],
    targets: [
        // Shared: what every role builds on. Imports point down this list only.
        .target(name: "CCRC32C", path: "Sources/Shared/CCRC32C"),
        library("Core", "Shared/Core", ["CCRC32C"]),
        library("Sharding", "Shared/Sharding", ["Core"]),
        library("Observability", "Shared/Observability", [logging]),
        library(
            "Configuration", "Shared/Configuration",
            ["Core", "Sharding", "Observability", toml, argumentParser, logging]),
        library("HTTPServer", "Shared/HTTPServer", [nioCore, nioPosix, nioHTTP1]),
        library("Wire", "Shared/Wire", ["Core", "Sharding", nioCore, nioHTTP1]),
        library(
            "ServiceSupport", "Shared/Service", ["Core", "HTTPServer", "Wire", nioCore, nioHTTP1],
            resources: [.embedInCode("openapi.json")]),

        // The client library: processes of the cluster reach each other with its connections; the router's proxy,
        // kv and the tests route with it.
        library(
            "DistribKVClient", "Client", ["Core", "Sharding", "Wire", nioCore, nioPosix, nioHTTP1]),

        // storage-node
        .systemLibrary(name: "CRocksDB", path: "Sources/StorageNode/CRocksDB", providers: [.apt(["librocksdb-dev"])]),
        .target(
            name: "CTableCheck", path: "Sources/StorageNode/CTableCheck", linkerSettings: [.linkedLibrary("rocksdb")]),
        library("LSM", "StorageNode/LSM", ["Core", "CRocksDB", "CTableCheck", nioCore]),
        library("Shard", "StorageNode/Shard", ["Core", "Sharding", "Wire", "LSM", nioCore, logging]),
        library(
            "StorageNodeService", "StorageNode/Service",
            [
                "Core", "Sharding", "Configuration", "HTTPServer", "Wire", "ServiceSupport", "Observability", "LSM",
                "Shard", "DistribKVClient",
                nioCore, nioPosix, nioHTTP1, logging, lifecycle, signals,
            ]),
        program(
            "storage-node", "StorageNode/Daemon",
            ["StorageNodeService", "Configuration", "Observability", argumentParser, logging]),

        // router
        library(
            "RouterService", "Router/Service",
            [
                "Core", "Sharding", "Configuration", "HTTPServer", "Wire", "ServiceSupport", "Observability",
                "DistribKVClient", nioCore, nioPosix, nioHTTP1, logging, lifecycle, signals,
            ]),
        program(
            "router", "Router/Daemon",
            ["RouterService", "Configuration", "Observability", "Sharding", "Core", nioCore, argumentParser, logging]),

        // replicator
        .systemLibrary(name: "CCurl", path: "Sources/Replicator/CCurl", providers: [.apt(["libcurl4-openssl-dev"])]),
        library("Curl", "Replicator/Curl", ["CCurl", nioCore]),
        library(
            "ReplicatorService", "Replicator/Service",
            [
                "Core", "Sharding", "Configuration", "HTTPServer", "Wire", "ServiceSupport", "Observability", "Curl",
                nioCore, nioPosix, nioHTTP1, logging, lifecycle, signals,
            ]),
        program(
            "replicator", "Replicator/Daemon",
            ["ReplicatorService", "Configuration", "Observability", "Sharding", "Core", argumentParser, logging]),

        // kv
        library("TerminalText", "CLI/Text"),
        library(
            "ImportPipeline", "CLI/Import", ["Core", "Wire", "DistribKVClient", "TerminalText", nioCore, nioPosix]),
        .systemLibrary(name: "CEpoll", path: "Sources/CLI/CEpoll"),
        library("LoadGenerator", "CLI/LoadGenerator", ["CEpoll", "Core", "Sharding", "Wire", nioCore, histogram]),
        library("BenchReport", "CLI/BenchReport", ["Core", "TerminalText"]),
        program(
            "kv", "CLI/Commands",
            [
                "Core", "Sharding", "Wire", "DistribKVClient", "TerminalText", "ImportPipeline", "BenchReport",
                "LoadGenerator", nioCore,
                nioPosix, nioHTTP1, argumentParser,
            ]),

        // What several test targets share.
        .target(
            name: "TestSupport", dependencies: ["Core", nioCore, nioPosix, nioHTTP1], path: "Tests/Support",
            swiftSettings: settings),

        // Fuzzing: docs/testing.md. The tests run it for a while.
        .executableTarget(
            name: "fuzz",
            dependencies: [
                "TestSupport", "Core", "Sharding", "Configuration", "HTTPServer", "Wire", "ServiceSupport", "LSM",
                "Shard",
                "StorageNodeService", nioCore, nioHTTP1, nioEmbedded, argumentParser,
            ], path: "Tests/Fuzz", exclude: ["run"], swiftSettings: settings),
        tests("FuzzTests", ["fuzz"]),

        // The hot pieces one by one: .ci/instructions counts what they do.
        .executableTarget(
            name: "microbench",
            dependencies: [
                "Core", "Sharding", "HTTPServer", "Wire", "ServiceSupport", "LSM", nioCore, nioHTTP1, nioEmbedded,
            ], path: "Benchmarks/Micro", swiftSettings: settings),

        tests("CoreTests", ["TestSupport", "Core"]),
        tests("ShardingTests", ["TestSupport", "Sharding", "Core"]),
        tests(
            "ConfigurationTests",
            ["TestSupport", "Configuration", "Observability", "Sharding", "Core", argumentParser, logging]),
        tests("ObservabilityTests", ["Observability", logging]),
        tests("HTTPServerTests", ["TestSupport", "HTTPServer", nioCore, nioPosix, nioHTTP1, nioEmbedded]),
        tests("WireTests", ["TestSupport", "Wire", "Sharding", "Core", nioCore]),
        tests(
            "ServiceSupportTests", ["TestSupport", "ServiceSupport", "HTTPServer", "Wire", "Core", nioCore, nioHTTP1]),
        tests("LSMTests", ["TestSupport", "LSM", "Core", nioCore]),
        tests("ShardTests", ["TestSupport", "Shard", "LSM", "Wire", "Sharding", "Core", nioCore, nioPosix, logging]),
        tests(
            "StorageNodeTests",
            [
                "TestSupport", "StorageNodeService", "ReplicatorService", "DistribKVClient", "Configuration", "Shard",
                "LSM", "Sharding",
                "Wire", "HTTPServer", "ServiceSupport", "Core", nioCore, nioPosix, nioHTTP1, logging, lifecycle,
            ]),
        tests(
            "DistribKVClientTests",
            [
                "TestSupport", "DistribKVClient", "ImportPipeline", "Sharding", "Wire", "Core", nioCore, nioPosix,
                nioHTTP1,
            ]),
        tests(
            "ImportPipelineTests",
            ["TestSupport", "ImportPipeline", "TerminalText", "DistribKVClient", "Core", nioCore, nioPosix]),
        tests(
            "LoadGeneratorTests",
            ["TestSupport", "LoadGenerator", "HTTPServer", "Sharding", "Core", nioCore, nioPosix, nioHTTP1]),
        tests("BenchReportTests", ["TestSupport", "BenchReport", "Core"]),
        tests(
            "CommandLineTests",
            [
                "TestSupport", "kv", "DistribKVClient", "TerminalText", "ImportPipeline", "BenchReport",
                "LoadGenerator", "Sharding",
                "Wire", "Core", nioCore, nioHTTP1, argumentParser,
            ]),
        tests(
            "ReplicatorTests",
            [
                "ReplicatorService", "Curl", "HTTPServer", "Sharding", "Wire", "Core", nioCore, nioPosix, nioHTTP1,
                logging,
            ]),
        tests(
            "SimulationTests",
            [
                "TestSupport", "ReplicatorService", "StorageNodeService", "ServiceSupport", "Shard", "LSM", "Sharding",
                "Wire", "Core", nioCore, logging,
            ]),
        tests(
            "RouterTests",
            [
                "TestSupport", "RouterService", "Configuration", "Sharding", "Wire", "HTTPServer", "ServiceSupport",
                "DistribKVClient", "Core", nioCore, nioPosix, nioHTTP1, nioEmbedded, logging,
            ]),
        tests(
            "ClusterTests",
            [
                "TestSupport", "BenchReport", "DistribKVClient", "LSM", "Shard", "Configuration", "Sharding", "Wire",
                "Core", nioCore, nioPosix, nioHTTP1,
            ]),
    ],
    swiftLanguageModes: [.v6],
    // Of CTableCheck: what RocksDB's headers need.
    cxxLanguageStandard: .cxx17
)
