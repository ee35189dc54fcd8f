import APIModels
import Foundation
import LinkHistory
import ManagementAPI

/// What passed over the links of this edge: the last hour by the planes, the minutes before from disk (X8).
///
/// Nothing waits for it. What can't be kept is told once, and again when it can.
actor KeptHistory {
    /// How far back one may ask, in seconds, and for how many steps.
    static let secondsMax = Int(HistoryStore.keptSeconds)
    static let samplesMax = 3_600

    private let store: HistoryStore?
    private let recorder: EventRecorder
    private var isFailing = false

    init(_ environment: EdgeEnvironment) {
        recorder = environment.recorder
        do {
            let (store, wasDamaged) = try HistoryStore.open(directory: environment.directory)
            self.store = store
            guard wasDamaged else { return }
            recorder.record(
                "history.lost", severity: .warning,
                "\(HistoryStore.fileName) in the state directory was damaged: the history of links begins anew")
        } catch {
            store = nil
            isFailing = true
            recorder.record(
                "history.lost", severity: .warning,
                "the history of links can't be kept (\(error)): make room in the state directory, or mend its file system, and restart")
        }
    }

    /// Keeps a minute that is over.
    func keep(_ minute: LinkHistory.Sample, peer: String) {
        guard let store else { return }
        do {
            try store.keep(minute, peer: peer)
            if isFailing { recorder.record("history.kept", "the history of links is kept again") }
            isFailing = false
        } catch {
            if !isFailing {
                recorder.record(
                    "history.lost", severity: .warning,
                    "minutes of the history of links are lost until there is room in the state directory: \(error)")
            }
            isFailing = true
        }
    }

    /// Forgets links to edges that are no more.
    func keepOnly(_ peers: Set<String>) { try? store?.keepOnly(peers) }

    /// The steps of the last `seconds`, of which there are at most `samplesMax`: as fine as that allows, in whole seconds within the last
    /// hour and whole minutes before.
    /// - Parameter recorder: what is in memory; nil when there is no link now.
    func history(of peer: String, seconds: Int, samplesMax: Int, _ recorder: LinkRecorder?) throws -> LinkHistory {
        let now = Date()
        let steps = max(1, min(samplesMax, Self.samplesMax))
        let finest = seconds <= LinkRecorder.secondsMax ? 1 : 60
        let stepSeconds = ((seconds + steps - 1) / steps + finest - 1) / finest * finest
        // Steps begin at multiples of their length: the first one is whole, so that there are not more of them.
        let step = Double(stepSeconds)
        let start = Date(timeIntervalSince1970: ((now.timeIntervalSince1970 - Double(seconds)) / step).rounded(.up) * step)
        var samples: [LinkHistory.Sample]
        if finest == 1 {
            samples = recorder?.seconds(from: start) ?? []
        } else {
            // None of a clock that was ahead.
            samples = try store?.minutes(peer: peer, from: start).filter { $0.time <= now } ?? []
            if let running = recorder?.minute, running.time >= start {
                // What was kept of it is of a process before this one.
                if samples.last?.time == running.time { samples[samples.count - 1].add(running) } else { samples.append(running) }
            }
        }
        return LinkHistory(peer: peer, stepSeconds: stepSeconds, samples: LinkHistory.gathered(samples, stepSeconds: stepSeconds))
    }
}

extension OnPremEdge {
    func linkHistory(peer: String, seconds: Int, samples: Int) async throws -> LinkHistory {
        guard let record = try? store.edge(peer), let history else { throw APIError.notFound("link", peer) }
        let memory = try await needPlane().run { $0.peers[record.id]?.history }
        return try await history.history(of: record.id, seconds: seconds, samplesMax: samples, memory)
    }
}

extension CloudEdge {
    func linkHistory(peer: String, seconds: Int, samples: Int) async throws -> LinkHistory {
        guard identity?.onPremEdge == peer, let history else { throw APIError.notFound("link", peer) }
        let memory = try await needPlane().run { $0.link?.history }
        return try await history.history(of: peer, seconds: seconds, samplesMax: samples, memory)
    }
}
