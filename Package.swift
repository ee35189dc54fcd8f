// swift-tools-version: 6.2
//
// Causeway: a machine runs in a cloud while its disks stay at home.
//
// A folder in Sources is a floor of the house, a target is a room, and imports
// only go down: Platform, Protocols, Blocks, Storage, Streaming, Target,
// Management, then the executables, which hold wiring only.

import PackageDescription

/// Every target of our own is built in the Swift 6 language mode, and a warning is an error.
let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    // The dynamic checks of exclusive access cost a cached read a sixth of its instructions: debug builds and their tests make
    // them, a release does not (the Makefile turns them off in dependencies too). What is generic is made for the types that it
    // is used with, across modules: that is worth a tenth of a write.
    .unsafeFlags(["-enforce-exclusivity=unchecked", "-cross-module-optimization"], .when(configuration: .release)),
]

/// Where the bugs that the simulator must find are known (Blocks' PlantedBug.swift), and where they are planted. Only `make test` asks
/// for them, for its own build of the simulator: nothing else has a trace of them.
let plantedBugs: [SwiftSetting] = Context.environment["CAUSEWAY_PLANTED_BUGS"] == nil ? [] : [.define("PLANTED_BUGS")]

/// A library target on one floor of the house.
func room(_ name: String, floor: String, _ dependencies: [Target.Dependency] = [], settings: [SwiftSetting] = []) -> Target {
    .target(
        name: name, dependencies: dependencies, path: "Sources/\(floor)/\(name)", exclude: ["README.md"],
        swiftSettings: strict + settings)
}

/// The unit tests of one room, in the same place below Tests.
func tests(of name: String, floor: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .testTarget(
        name: "\(name)Tests", dependencies: [.byName(name: name)] + dependencies, path: "Tests/\(floor)/\(name)Tests",
        swiftSettings: strict)
}

let nioCore: Target.Dependency = .product(name: "NIOCore", package: "swift-nio")
let nioPosix: Target.Dependency = .product(name: "NIOPosix", package: "swift-nio")
let nioFoundation: Target.Dependency = .product(name: "NIOFoundationCompat", package: "swift-nio")
let nioEmbedded: Target.Dependency = .product(name: "NIOEmbedded", package: "swift-nio")
let nioTLS: Target.Dependency = .product(name: "NIOTLS", package: "swift-nio")
let nioSSL: Target.Dependency = .product(name: "NIOSSL", package: "swift-nio-ssl")
let crypto: Target.Dependency = .product(name: "Crypto", package: "swift-crypto")
let x509: Target.Dependency = .product(name: "X509", package: "swift-certificates")
let asn1: Target.Dependency = .product(name: "SwiftASN1", package: "swift-asn1")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let deque: Target.Dependency = .product(name: "DequeModule", package: "swift-collections")
let arguments: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let hummingbird: Target.Dependency = .product(name: "Hummingbird", package: "hummingbird")
let asyncHTTPClient: Target.Dependency = .product(name: "AsyncHTTPClient", package: "async-http-client")
let grdb: Target.Dependency = .product(name: "GRDB", package: "GRDB.swift")
let yams: Target.Dependency = .product(name: "Yams", package: "Yams")
let histogram: Target.Dependency = .product(name: "Histogram", package: "hdrhistogram-swift")
let lifecycle: Target.Dependency = .product(name: "ServiceLifecycle", package: "swift-service-lifecycle")

let platform: [Target] = [
    .systemLibrary(
        name: "CLibCrypto", path: "Sources/Platform/CLibCrypto", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
    .systemLibrary(name: "CMultiBuffer", path: "Sources/Platform/CMultiBuffer", providers: [.apt(["libipsec-mb-dev"])]),
    .systemLibrary(name: "CLZ4", path: "Sources/Platform/CLZ4", pkgConfig: "liblz4", providers: [.apt(["liblz4-dev"])]),
    .systemLibrary(name: "CZstd", path: "Sources/Platform/CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
    .systemLibrary(
        name: "CLibISCSI", path: "Sources/Platform/CLibISCSI", pkgConfig: "libiscsi", providers: [.apt(["libiscsi-dev"])]),
    .target(
        name: "CPlatform", path: "Sources/Platform/CPlatform", exclude: ["README.md"],
        cSettings: [.unsafeFlags(["-Wall", "-Wextra", "-Werror"])]),
    .target(
        name: "CNetwork", path: "Sources/Platform/CNetwork", exclude: ["README.md"],
        cSettings: [.unsafeFlags(["-Wall", "-Wextra", "-Werror"])]),
    room("Checksums", floor: "Platform", ["CPlatform", nioCore]),
    room("Ciphers", floor: "Platform", ["CLibCrypto", "CMultiBuffer", "CPlatform", nioCore]),
    room("Compression", floor: "Platform", ["CLZ4", "CZstd", nioCore]),
    room("Files", floor: "Platform", ["CPlatform"]),
    room("Initiator", floor: "Platform", ["CLibISCSI", "CPlatform"]),
]

let protocols: [Target] = [
    room("SCSI", floor: "Protocols", ["Checksums", nioCore]),
    room("ISCSI", floor: "Protocols", ["Checksums", "Ciphers", nioCore]),
    room("NBD", floor: "Protocols", [nioCore]),
    room("LinkProtocol", floor: "Protocols", ["Blocks", nioCore, deque]),
]

let blocks: [Target] = [
    room("Blocks", floor: "Blocks", ["Checksums", nioCore], settings: plantedBugs)
]

let storage: [Target] = [
    room("SecureCache", floor: "Storage", ["Blocks", "Ciphers", "Checksums", nioCore, deque]),
    room("WriteLog", floor: "Storage", ["Blocks", "Ciphers", "Checksums", nioCore, deque]),
    room("CloudOnlyDisk", floor: "Storage", ["Blocks", "Ciphers", "Checksums", "WriteLog", nioCore]),
    room("LocalFiles", floor: "Storage", ["Files", "Blocks", nioCore, nioPosix]),
    room("Disks", floor: "Storage", ["Blocks", "Checksums", nioCore, deque]),
    room("ReadCache", floor: "Storage", ["Blocks", "Checksums", nioCore]),
]

let streaming: [Target] = [
    room(
        "Volumes", floor: "Streaming",
        ["Blocks", "Ciphers", "SecureCache", "WriteLog", "CloudOnlyDisk", "Disks", "LinkProtocol", nioCore, deque]),
    room("Link", floor: "Streaming", ["LinkProtocol", "Blocks", "Compression", nioCore, nioPosix, nioTLS, nioSSL, crypto, logging, deque]),
    room("Tunnels", floor: "Streaming", ["LinkProtocol", nioCore, nioPosix, deque]),
    room("WANRelay", floor: "Streaming", [nioCore, nioPosix, logging, deque]),
]

let target: [Target] = [
    room("StorageTarget", floor: "Target", ["SCSI", "ISCSI", "Blocks", nioCore, nioPosix, logging, deque]),
    room("RateLimits", floor: "Target", ["Blocks", nioCore, deque]),
    room(
        "NetworkBlockServer", floor: "Target",
        ["NBD", "StorageTarget", "Blocks", nioCore, nioPosix, nioTLS, nioSSL, x509, asn1, logging]),
]

let management: [Target] = [
    room("APIModels", floor: "Management"),
    room("EdgeConfiguration", floor: "Management", [yams]),
    room("Pairing", floor: "Management", ["Files", x509, asn1, crypto]),
    room("StateStore", floor: "Management", ["Files", grdb]),
    room("LinkHistory", floor: "Management", ["APIModels", "Files", grdb]),
    room("ManagementAPI", floor: "Management", ["APIModels", hummingbird, lifecycle, crypto, logging, nioCore]),
    room(
        "EdgeServices", floor: "Management",
        [
            "APIModels", "EdgeConfiguration", "Pairing", "StateStore", "LinkHistory", "ManagementAPI", "Volumes", "Link", "Tunnels",
            "StorageTarget",
            "RateLimits", "NetworkBlockServer", "Files",
            "LocalFiles", "Ciphers", "Checksums",
            "Disks", "ReadCache", "SecureCache", "WriteLog", "CloudOnlyDisk", "LinkProtocol", "ISCSI", "SCSI", "Blocks", nioCore, nioPosix,
            nioFoundation, logging,
            lifecycle,
            crypto,
        ]),
]

/// Tools for measuring, proving and recovering; nothing of the daemon imports them.
let tools: [Target] = [
    room("LoadGenerator", floor: "Tools", ["CPlatform"]),
    room("PacketWAN", floor: "Tools", ["CNetwork", "CPlatform", "LoadGenerator", "WANRelay", nioCore, nioPosix, deque]),
    room(
        "OfflineRecovery", floor: "Tools",
        ["Files", "Blocks", "Ciphers", "LocalFiles", "WriteLog", "CloudOnlyDisk", "SecureCache", "Disks", nioCore, nioPosix]),
]

let executables: [Target] = [
    .executableTarget(
        name: "causewayd", dependencies: ["EdgeServices", "EdgeConfiguration", "CPlatform", arguments, logging, lifecycle],
        swiftSettings: strict),
    .executableTarget(
        name: "causeway",
        dependencies: [
            "APIModels", "EdgeConfiguration", "WANRelay", "PacketWAN", "LoadGenerator", "OfflineRecovery", "Files", "Ciphers", "Blocks",
            arguments,
            asyncHTTPClient,
            logging, nioCore, nioPosix,
            .product(name: "NIOHTTP1", package: "swift-nio"),
        ],
        swiftSettings: strict),
    .executableTarget(
        name: "causeway-load", dependencies: ["Initiator", "LoadGenerator", arguments, histogram], exclude: ["README.md"],
        swiftSettings: strict),
]

/// What the unit tests and the simulator share: files, a clock and a network that are crueler than real ones.
let simulation: [Target] = [
    .target(
        name: "SimulatedStorage", dependencies: ["Blocks", nioCore], path: "Tests/Simulation/SimulatedStorage",
        swiftSettings: strict),
    .target(
        name: "SimulatedWorlds",
        dependencies: [
            "SimulatedStorage", "Volumes", "LinkProtocol", "WriteLog", "CloudOnlyDisk", "SecureCache", "Disks", "ReadCache", "Ciphers",
            "Blocks",
            nioCore,
        ],
        path: "Tests/Simulation/SimulatedWorlds", swiftSettings: strict + plantedBugs),
    .executableTarget(
        name: "causeway-simulator", dependencies: ["SimulatedWorlds", "Blocks", "CPlatform", arguments],
        path: "Tests/Simulation/causeway-simulator",
        swiftSettings: strict + plantedBugs),
    .testTarget(
        name: "SimulationTests", dependencies: ["SimulatedWorlds", "SimulatedStorage", "Blocks"],
        path: "Tests/Simulation/SimulationTests", swiftSettings: strict),
]

/// What the data path costs, in counts that CI checks.
let budget: [Target] = [
    .target(
        name: "BudgetSupport", path: "Benchmarks/budget/BudgetSupport", cSettings: [.unsafeFlags(["-Wall", "-Wextra", "-Werror"])]),
    .executableTarget(
        name: "causeway-budget",
        dependencies: [
            "BudgetSupport", "StorageTarget", "Volumes", "SecureCache", "WriteLog", "LocalFiles", "Files", "Ciphers", "SCSI", "Blocks",
            nioCore,
            nioPosix, logging,
        ], path: "Benchmarks/budget/causeway-budget", swiftSettings: strict),
]

/// What the cache keeps, takes and writes: Benchmarks/cache.
let cacheBench: [Target] = [
    .executableTarget(
        name: "causeway-cache-bench",
        dependencies: ["SecureCache", "LocalFiles", "Files", "Ciphers", "Blocks", nioCore, nioPosix, arguments],
        path: "Benchmarks/cache/causeway-cache-bench", swiftSettings: strict)
]

/// Hostile inputs for every parser of outside bytes: Tests/Fuzz/README.md.
let fuzz: [Target] = [
    .target(name: "CFuzz", path: "Tests/Fuzz/CFuzz", cSettings: [.unsafeFlags(["-Wall", "-Wextra", "-Werror"])]),
    .target(
        name: "FuzzTargets",
        dependencies: [
            "CFuzz", "ISCSI", "SCSI", "NBD", "StorageTarget", "LinkProtocol", "Compression", "WriteLog", "CloudOnlyDisk", "SecureCache",
            "Disks",
            "Ciphers", "Checksums", "Blocks", nioCore,
        ],
        path: "Tests/Fuzz/FuzzTargets", swiftSettings: strict),
    .executableTarget(
        name: "causeway-fuzz", dependencies: ["FuzzTargets", arguments], path: "Tests/Fuzz/causeway-fuzz", swiftSettings: strict),
]

let unitTests: [Target] = [
    tests(of: "Ciphers", floor: "Platform", ["CPlatform", nioCore, crypto]),
    tests(of: "Compression", floor: "Platform", [nioCore]),
    tests(of: "Checksums", floor: "Platform", ["CPlatform", nioCore]),
    tests(of: "Files", floor: "Platform"),
    tests(of: "LocalFiles", floor: "Storage", [nioCore, nioPosix]),
    tests(of: "Blocks", floor: "Blocks", [nioCore]),
    tests(of: "SCSI", floor: "Protocols", ["Checksums", nioCore]),
    tests(of: "ISCSI", floor: "Protocols", ["Ciphers", nioCore]),
    tests(of: "NBD", floor: "Protocols", [nioCore]),
    tests(of: "LinkProtocol", floor: "Protocols", [nioCore]),
    tests(of: "SecureCache", floor: "Storage", ["SimulatedStorage", nioCore]),
    tests(of: "WriteLog", floor: "Storage", ["SimulatedStorage", nioCore]),
    tests(of: "CloudOnlyDisk", floor: "Storage", ["SimulatedStorage", "WriteLog", "Ciphers", "Blocks", nioCore]),
    tests(of: "Disks", floor: "Storage", ["SimulatedStorage", nioCore]),
    tests(of: "ReadCache", floor: "Storage", ["SimulatedStorage", "Blocks", nioCore]),
    tests(
        of: "Volumes", floor: "Streaming",
        ["SimulatedStorage", "Blocks", "Ciphers", "CloudOnlyDisk", "Disks", "LinkProtocol", "SecureCache", "WriteLog", nioCore]),
    tests(of: "Link", floor: "Streaming", [nioCore, nioEmbedded, nioPosix]),
    tests(of: "Tunnels", floor: "Streaming", ["LinkProtocol", nioCore, nioPosix]),
    tests(of: "WANRelay", floor: "Streaming", [nioCore, nioPosix, logging]),
    tests(
        of: "EdgeServices", floor: "Management",
        [
            "APIModels", "ManagementAPI", "StateStore", "Checksums", "Blocks", "Ciphers", "CloudOnlyDisk", "Files", "SCSI", "Volumes",
            "WriteLog", nioCore, nioPosix, nioFoundation,
        ]),
    tests(of: "StorageTarget", floor: "Target", [nioCore, nioEmbedded, nioPosix, "ISCSI", "SCSI", "Ciphers"]),
    tests(of: "RateLimits", floor: "Target", ["Blocks", nioCore, nioEmbedded]),
    tests(of: "NetworkBlockServer", floor: "Target", [nioCore, nioPosix, nioSSL, logging, "NBD", "StorageTarget", "SCSI", "Blocks"]),
    tests(of: "EdgeConfiguration", floor: "Management"),
    tests(of: "Pairing", floor: "Management", ["Files", x509, crypto]),
    tests(of: "StateStore", floor: "Management", ["Files", grdb]),
    tests(of: "LinkHistory", floor: "Management", ["APIModels", "Files"]),
    tests(of: "LoadGenerator", floor: "Tools"),
    tests(of: "PacketWAN", floor: "Tools", ["LoadGenerator", nioCore]),
    tests(
        of: "OfflineRecovery", floor: "Tools",
        ["Files", "Blocks", "Ciphers", "LocalFiles", "WriteLog", "CloudOnlyDisk", "SecureCache", nioCore, nioPosix]),
    tests(of: "Initiator", floor: "Platform"),
    tests(of: "ManagementAPI", floor: "Management", [.product(name: "HummingbirdTesting", package: "hummingbird")]),
]

/// Real daemons and real clients; the executables are built first, and found beside the test bundle.
let endToEnd: [Target] = [
    .testTarget(
        name: "EndToEndTests", dependencies: ["APIModels", "Initiator", "causewayd", "causeway", "causeway-load"],
        path: "Tests/EndToEnd/EndToEndTests", swiftSettings: strict)
]

let package = Package(
    name: "Causeway",
    platforms: [.macOS(.v15)],
    products: [
        .executable(name: "causewayd", targets: ["causewayd"]),
        .executable(name: "causeway", targets: ["causeway"]),
        .executable(name: "causeway-load", targets: ["causeway-load"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-certificates", from: "1.21.1"),
        .package(url: "https://github.com/apple/swift-asn1", from: "1.7.4"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
    ],
    targets: platform + protocols + blocks + storage + streaming + target + management + tools + executables + simulation + budget
        + cacheBench + fuzz + unitTests + endToEnd
)
