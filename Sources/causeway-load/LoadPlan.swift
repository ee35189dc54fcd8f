import LoadGenerator

/// What a run is to do; made and checked from the command line.
struct LoadPlan {
    /// More commands than this on one connection are refused: each has a buffer of its own.
    static let maximumQueueDepth = 4096
    static let maximumConnections = 256
    static let maximumBlockBytes: UInt64 = 16 << 20

    var urls: [String] = []
    var readPercent = 100
    var pattern = AccessPattern.random
    var blockBytes = 4096
    var queueDepth = 32
    var connections = 1
    var flushEvery = 0
    var forceUnitAccessPercent = 0
    var operationsPerSecond: UInt64?
    var bytesPerSecond: UInt64?
    var runtimeNanoseconds: UInt64?
    var byteLimit: UInt64?
    var operationLimit: UInt64?
    var rampNanoseconds: UInt64 = 0
    var range: Range<UInt64>?
    var seed: UInt64 = 1
    var stateFile: String?
    var originalFile: String?
    /// A session that breaks loses nothing that was acknowledged.
    var targetKeepsWrites = false
    var reconnectNanoseconds: UInt64 = 0
    var maximumErrors = 0
    var finalFlush = true
    var headerDigest = false
    var commandTimeoutSeconds: Int32 = 30
    var live = false
}
