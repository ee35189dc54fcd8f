import ArgumentParser
import Foundation
import Glibc
import Initiator
import LoadGenerator

struct VerifyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Checks a volume or an image against a state file.",
        discussion: """
            Each sector must hold a generation that was really issued and is not older than the last flushed one; \
            sectors that were never written must be as before.
            """)

    @Argument(help: "iscsi:// URL of the volume, or a raw image file.")
    var source: String
    @Argument(help: "The state file of the runs.", completion: .file())
    var stateFile: String
    @Option(help: "What the volume held before the first run.", completion: .file())
    var original: String?
    @Flag(help: "No machine has lost power since: every sector must hold the last acknowledged write.")
    var exact = false
    @Option(help: "How many wrong sectors to print.")
    var show = 10
    @Flag(help: "Report as JSON.")
    var json = false

    struct Result: Codable {
        var version = 1
        var unitsChecked = 0
        var unitsWithoutWrite = 0
        var unitsWrong = 0
        var mismatches: [String] = []
    }

    func run() throws {
        let result: Result
        do {
            result = try check()
        } catch let error as LoadError {
            printError("causeway-load: \(error)")
            throw LoadExit.inputOutputFailed
        }
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            print(String(decoding: try encoder.encode(result), as: UTF8.self))
        } else {
            print(
                "\(result.unitsChecked) blocks checked, \(result.unitsWrong) wrong, \(result.unitsWithoutWrite) hold what was there before"
            )
        }
        for mismatch in result.mismatches { printError("verification failed: \(mismatch)") }
        if result.unitsWrong > 0 { throw LoadExit.verificationFailed }
    }

    private func check() throws -> Result {
        guard var (ledger, _) = try VerificationStore.load(path: stateFile) else { throw LoadError("\(stateFile): no such file") }
        if !exact { ledger.loseSession() }
        let before = try original.map(OriginalContent.init(path:))
        let lookup = before.map { content in { (sector: UInt64) in content.sector(sector) } }
        let stamp = SectorStamp(job: ledger.job, seed: 0)
        let unitBytes = ledger.sectorsPerUnit * 512
        var result = Result()
        var expectation = ReadExpectation()
        func take(_ unit: Int, _ bytes: UnsafeRawBufferPointer) {
            ledger.expect(unit..<unit + 1, into: &expectation)
            result.unitsChecked += 1
            let mismatch = ledger.check(
                bytes, firstUnit: unit, against: expectation, stamp: stamp, original: lookup,
                observed: { _, generation in if generation == 0 { result.unitsWithoutWrite += 1 } })
            guard let mismatch else { return }
            result.unitsWrong += 1
            if result.mismatches.count < max(show, 0) { result.mismatches.append(mismatch.description) }
        }
        let unitsPerRead = max(1, (1 << 20) / unitBytes)
        let chunks = stride(from: 0, to: ledger.unitCount, by: unitsPerRead).map { start in
            Chunk(firstUnit: start, unitCount: min(unitsPerRead, ledger.unitCount - start))
        }
        let geometry = Geometry(firstByte: ledger.firstSector &* 512, unitBytes: unitBytes, chunkBytes: unitsPerRead * unitBytes)
        if source.hasPrefix("iscsi://") {
            try VerifyReader.readVolume(source, geometry, chunks, take)
        } else {
            try VerifyReader.readFile(source, geometry, chunks, take)
        }
        return result
    }
}

/// Units that are read together.
struct Chunk {
    var firstUnit: Int
    var unitCount: Int
}

/// Where the units of a ledger are.
struct Geometry {
    var firstByte: UInt64
    var unitBytes: Int
    var chunkBytes: Int

    func offset(_ chunk: Chunk) -> UInt64 { firstByte &+ UInt64(chunk.firstUnit) &* UInt64(unitBytes) }
}

/// Reads units in order and hands each to a function.
enum VerifyReader {
    typealias Taker = (Int, UnsafeRawBufferPointer) -> Void

    static func readFile(_ path: String, _ geometry: Geometry, _ chunks: [Chunk], _ take: Taker) throws {
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw LoadError.system("open", path) }
        defer { Glibc.close(descriptor) }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: geometry.chunkBytes, alignment: 4096)
        defer { buffer.deallocate() }
        for chunk in chunks {
            let byteCount = chunk.unitCount * geometry.unitBytes
            var position = 0
            while position < byteCount {
                let count = pread(
                    descriptor, buffer.baseAddress.map { $0 + position }, byteCount - position,
                    off_t(clamping: geometry.offset(chunk)) + off_t(position))
                if count < 0 && errno == EINTR { continue }
                guard count >= 0 else { throw LoadError.system("read", path) }
                if count == 0 {
                    throw LoadError("\(path) ends at byte \(geometry.offset(chunk) + UInt64(position)), before the job's range")
                }
                position += count
            }
            hand(chunk, UnsafeRawBufferPointer(buffer), geometry, take)
        }
    }

    static func readVolume(_ url: String, _ geometry: Geometry, _ chunks: [Chunk], _ take: Taker) throws {
        let blockBytes: Int
        do {
            blockBytes = try BlockingInitiator(url: url, timeoutSeconds: 10).capacity.blockBytes
        } catch { throw LoadError("\(withoutSecret(url)): \(error)") }
        let session = ISCSIInitiatorSession(url: url)
        let loop = InitiatorLoop()
        loop.add(session)
        defer { session.close() }
        var failure: String?
        var isConnected = false
        session.onLoss = { failure = "session lost: \($0)" }
        do {
            try session.connect { result in
                if case .failure(let error) = result { failure = "\(error)" } else { isConnected = true }
            }
        } catch { throw LoadError("\(withoutSecret(url)): \(error)") }
        while !isConnected && failure == nil { loop.turn(timeoutNanoseconds: 100_000_000) }

        let commands = (0..<8).map { InitiatorCommand(byteCount: geometry.chunkBytes, tag: $0) }
        var idle = commands
        var done: [(InitiatorCommand, Chunk)] = []
        var next = 0
        var finished = 0
        while finished < chunks.count && failure == nil {
            while next < chunks.count, let command = idle.popLast() {
                let chunk = chunks[next]
                next += 1
                command.handler = { command, outcome in
                    if outcome == .good { done.append((command, chunk)) } else { failure = failure ?? "read failed: \(outcome)" }
                }
                let byteCount = chunk.unitCount * geometry.unitBytes
                guard byteCount % blockBytes == 0, geometry.offset(chunk) % UInt64(blockBytes) == 0,
                    session.read(
                        command, block: geometry.offset(chunk) / UInt64(blockBytes), blockCount: byteCount / blockBytes,
                        blockBytes: blockBytes)
                else {
                    failure = failure ?? "a read could not be started"
                    break
                }
            }
            session.sendQueued()
            loop.turn(timeoutNanoseconds: 1_000_000_000)
            for (command, chunk) in done {
                hand(chunk, UnsafeRawBufferPointer(command.buffer), geometry, take)
                idle.append(command)
                finished += 1
            }
            done.removeAll()
        }
        for command in commands { command.handler = nil }
        if let failure { throw LoadError("\(withoutSecret(url)): \(failure)") }
    }

    private static func hand(_ chunk: Chunk, _ bytes: UnsafeRawBufferPointer, _ geometry: Geometry, _ take: Taker) {
        for index in 0..<chunk.unitCount {
            let start = index * geometry.unitBytes
            take(chunk.firstUnit + index, UnsafeRawBufferPointer(rebasing: bytes[start..<start + geometry.unitBytes]))
        }
    }
}
