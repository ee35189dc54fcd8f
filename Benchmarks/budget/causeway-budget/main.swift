import BudgetSupport
import Foundation
import NIOCore
import NIOPosix

// What one cached read and one logged write cost the loop of an edge: allocations, printed as JSON. Under callgrind with
// --dump-before=budget_mark the instructions between two marks are those of one measurement.

/// What is measured, in this order.
struct Measurement: Encodable {
    let name: String
    let kind: budget_kind
    let depth: UInt32
    var allocationsPerOperation = 0.0

    enum CodingKeys: String, CodingKey { case name, depth, allocationsPerOperation, operations }
    var operations: UInt32 = 0

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(name, forKey: .name)
        try container.encode(depth, forKey: .depth)
        try container.encode(operations, forKey: .operations)
        try container.encode(allocationsPerOperation, forKey: .allocationsPerOperation)
    }
}

func run() throws {
    let operations = CommandLine.arguments.dropFirst().first.flatMap { UInt32($0) } ?? 8192
    let directory = FileManager.default.temporaryDirectory.appendingPathComponent("causeway-budget-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let threadPool = NIOThreadPool(numberOfThreads: 1)
    threadPool.start()
    let loop = group.next()
    let blockCount = 4096

    let port = try loop.flatSubmit {
        let promise = loop.makePromise(of: Int.self)
        Edge.start(on: loop, threadPool: threadPool, directory: directory, blockCount: blockCount) { result in
            promise.completeWith(result)
        }
        return promise.futureResult
    }.wait()
    let socket = budget_connect(UInt16(port), Edge.targetName)
    guard socket >= 0 else { throw BudgetError("no session") }
    try loop.submit { budget_count_allocations(1) }.wait()

    var measurements = [
        Measurement(name: "cached 4 KiB read", kind: BUDGET_READ, depth: 1),
        Measurement(name: "cached 4 KiB read", kind: BUDGET_READ, depth: 32),
        Measurement(name: "logged 4 KiB write", kind: BUDGET_WRITE, depth: 1),
        Measurement(name: "logged 4 KiB write", kind: BUDGET_WRITE, depth: 8),
    ]
    for index in measurements.indices {
        let one = measurements[index]
        let rounds = max(1, operations / one.depth)
        // Once to warm pools, tables and branches.
        guard budget_run(socket, one.kind, one.depth, max(2, rounds / 4), UInt32(blockCount)) == 0 else { throw BudgetError("no answer") }
        let before = try loop.submit { budget_allocations() }.wait()
        budget_mark()
        guard budget_run(socket, one.kind, one.depth, rounds, UInt32(blockCount)) == 0 else { throw BudgetError("no answer") }
        budget_mark()
        let after = try loop.submit { budget_allocations() }.wait()
        measurements[index].operations = rounds * one.depth
        measurements[index].allocationsPerOperation = Double(after - before) / Double(rounds * one.depth)
    }
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    print(String(decoding: try encoder.encode(measurements), as: UTF8.self))
}

do {
    try run()
} catch {
    FileHandle.standardError.write(Data("causeway-budget: \(error)\n".utf8))
    exit(1)
}
