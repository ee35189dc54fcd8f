import Blocks
import NIOCore

@testable import LinkProtocol

/// Home has always more to send, in some classes, over some connections.
final class SimulatedLoad {
    let line: SimulatedLine
    let home: LinkSession
    /// Payload that arrived at the cloud edge, by class.
    var arrived = [Int](repeating: 0, count: TrafficClass.allCases.count)
    /// A short answer that home owes the cloud edge: see `demandRead`.
    private var answered = false
    /// Each answer is followed by the next question: see `shortReads`.
    private var isReadingOn = false
    private var answers = 0
    private let data = ByteBuffer(repeating: 1, count: LinkLimits.pieceBytes)

    /// - Parameter classes: those that always have more to send.
    init(_ classes: [TrafficClass], _ shape: SimulatedLine.Shape, connections: Int = 2) {
        line = SimulatedLine(shape, seed: 5)
        home = line.session(.acceptor)
        line.onAction = { [unowned self] end, action in
            switch (end, action) {
            case (.acceptor, .sessionStarted): for trafficClass in classes { fill(trafficClass) }
            case (.acceptor, .becameWritable(let trafficClass)) where classes.contains(trafficClass): fill(trafficClass)
            case (.initiator, .deliver(.pointData(_, _, _, let data), let trafficClass)):
                arrived[Int(trafficClass.rawValue)] += data.readableBytes
            case (.acceptor, .deliver(.readRequest(let read, _, _), _)):
                _ = home.enqueue(.readData(read: read, offset: 0, data: ByteBuffer(repeating: 1, count: 4_096)), .demand)
            case (.initiator, .deliver(.readData(let read, _, _), _)) where read > 0:
                answered = true
                answers += 1
                if isReadingOn { ask() }
            case (.initiator, .deliver(.readData(_, _, let data), let trafficClass)):
                arrived[Int(trafficClass.rawValue)] += data.readableBytes
            default: break
            }
        }
        for _ in 0..<connections { line.connect() }
    }

    private func fill(_ trafficClass: TrafficClass) {
        let isBulk = trafficClass == .demand
        while home.isWritable(trafficClass, isBulk: isBulk) {
            let message: LinkMessage =
                trafficClass.isOrdered
                ? .pointData(volume: MessageCodecTests.volume, point: PointNumber(1), start: 0, data: data)
                : .readData(read: 0, offset: 0, data: data)
            if !home.enqueue(message, trafficClass, isBulk: isBulk) { break }
        }
    }

    /// How long a read of 4 KiB takes that the cloud edge asks for now, in milliseconds.
    func demandRead() -> Double {
        answered = false
        let start = line.now
        ask()
        line.run(for: .seconds(5)) { [unowned self] in answered }
        return Double((line.now - start).nanoseconds) / 1e6
    }

    private func ask() {
        _ = line.session(.initiator).enqueue(
            .readRequest(read: 1, volume: MessageCodecTests.volume, range: SectorRange(from: 0, to: 8)), .demand)
    }

    /// How many reads of 4 KiB are answered in a second, `depth` of them at once.
    func shortReads(depth: Int, seconds: Int64) -> Double {
        isReadingOn = true
        for _ in 0..<depth { ask() }
        let before = answers
        line.run(for: .seconds(seconds))
        isReadingOn = false
        return Double(answers - before) / Double(seconds)
    }

    /// Bytes a second of each class that arrive within `seconds`.
    func rates(seconds: Int64) -> [TrafficClass: Double] {
        let before = arrived
        line.run(for: .seconds(seconds))
        return Dictionary(
            uniqueKeysWithValues: TrafficClass.allCases.map {
                ($0, Double(arrived[Int($0.rawValue)] - before[Int($0.rawValue)]) / Double(seconds))
            })
    }
}
