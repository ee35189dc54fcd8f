import Blocks
import Ciphers
import NIOCore

/// Judges one file of records, as far as that goes without the others.
final class CacheRecordCheck<File: StorageFile> {
    /// What was found.
    struct Outcome {
        var state = CacheReport.RecordFile.State.whole
        var fragmentCount = 0
        /// Where what can be read ends.
        var byteCount: UInt64 = 0
        /// What is wrong there; nil for what a crash leaves.
        var damage: String?
    }

    private static var pieceBytes: Int { 1 << 20 }

    private let file: File
    private let key: SecretKey
    private let completion: (Result<Outcome, StorageFileError>) -> Void
    private var outcome = Outcome()

    init(file: File, key: SecretKey, completion: @escaping (Result<Outcome, StorageFileError>) -> Void) {
        self.file = file
        self.key = key
        self.completion = completion
    }

    func start() {
        CacheRecordReader(file: file, key: key) { [self] result in
            switch result {
            case .failure(let error): completion(.failure(error))
            case .success(let extent): measure(extent)
            }
        }.start()
    }

    private func measure(_ extent: CacheRecordFileExtent?) {
        outcome.fragmentCount = extent?.chains.count ?? 0
        outcome.byteCount = extent.map { max($0.byteCount, UInt64(CacheRecordFileHeader.byteCount)) } ?? 0
        if extent?.isComplete == true { return completion(.success(outcome)) }
        file.size { [self] result in
            switch result {
            case .failure(let error): completion(.failure(error))
            case .success(let size):
                outcome.state = extent?.header.kind == .checkpoint || size == 0 ? .unfinished : .whole
                if size <= outcome.byteCount { return completion(.success(outcome)) }
                if extent != nil, outcome.state == .whole { outcome.state = .torn }
                if extent == nil { outcome.state = .unfinished }
                lookForMore(from: outcome.byteCount, isFirst: true)
            }
        }
    }

    /// Fragments are written one after the other: should a later one be there, then what is before it was written too. The first of what
    /// is looked at can't be read. A power cut may have lost sectors before a later one, for nothing orders them until they are durable; the
    /// files are new, so those are zeroes, which nothing that is sealed is. Otherwise bytes have changed.
    private func lookForMore(from offset: UInt64, isFirst: Bool, hasGap: Bool = false) {
        file.read(at: offset, byteCount: Self.pieceBytes) { [self] result in
            let bytes: ByteBuffer
            switch result {
            case .failure(let error): return completion(.failure(error))
            case .success(let read): bytes = read
            }
            let number = UInt32(clamping: outcome.fragmentCount)
            var hasGap = hasGap
            for position in stride(from: 0, to: bytes.readableBytes, by: CacheFragments.alignment) {
                let start = bytes.readerIndex + position
                let sector = bytes.viewBytes(at: start, length: min(CacheFragments.alignment, bytes.readableBytes - position))
                hasGap = hasGap || sector?.allSatisfy { $0 == 0 } == true
                guard !isFirst || position > 0, bytes.getInteger(at: start, as: UInt32.self) == CacheFragments.magic,
                    let later = bytes.getInteger(at: start + 4, as: UInt32.self), later > number || outcome.byteCount == 0
                else { continue }
                if hasGap { return completion(.success(outcome)) }
                outcome.state = .damaged
                outcome.damage =
                    outcome.byteCount == 0
                    ? "the header can't be read, and records are behind it"
                    : "fragment \(number) can't be read, and there are later ones behind it"
                return completion(.success(outcome))
            }
            if bytes.readableBytes < Self.pieceBytes { return completion(.success(outcome)) }
            lookForMore(from: offset + UInt64(Self.pieceBytes), isFirst: false, hasGap: hasGap)
        }
    }
}
