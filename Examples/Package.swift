// swift-tools-version: 6.1
import PackageDescription

// Programs that use the client library, as yours would. `.ci/examples` builds them, and takes care that every piece of
// Swift in docs/client.md and in the library's own documentation is a part of what is built here.
let package = Package(
    name: "distribKV-examples",
    platforms: [.macOS(.v15)],
    products: [
        .library(name: "Examples", targets: ["Examples"]),
        .executable(name: "kv-examples", targets: ["kv-examples"]),
    ],
    dependencies: [
        .package(name: "distribKV", path: ".."),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
    ],
    targets: [
        .target(
            name: "Examples",
            dependencies: [
                .product(name: "DistribKVClient", package: "distribKV"),
                .product(name: "NIOCore", package: "swift-nio"),
            ]),
        .executableTarget(
            name: "kv-examples",
            dependencies: ["Examples", .product(name: "DistribKVClient", package: "distribKV")]),
    ],
    swiftLanguageModes: [.v6]
)
