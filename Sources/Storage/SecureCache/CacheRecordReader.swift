import Blocks
import Ciphers
import NIOCore

/// How far a record file is whole.
struct CacheRecordFileExtent {
    var header: CacheRecordFileHeader
    /// The chain behind each fragment.
    var chains: [CacheChain] = []
    /// A fragment said that it is the last.
    var isComplete = false
    var byteCount: UInt64 = 0

    /// Leaves only the first fragments, as the next journal says; false when they are not the ones that it means.
    mutating func cut(to count: UInt32, chain: CacheChain) -> Bool {
        guard Int(count) <= chains.count, (count == 0 ? CacheChain() : chains[Int(count) - 1]) == chain else { return false }
        chains.removeSubrange(Int(count)...)
        return true
    }
}

/// The records of a fragment, as they were sealed.
struct CacheFragmentRecords {
    /// The salt of the file.
    let salt: [UInt8]
    let fragment: UInt32
    let records: ByteBuffer
}

/// Reads a record file from its start to the last fragment that is whole, a piece at a time: a checkpoint of a large cache is larger
/// than what may be in memory.
final class CacheRecordReader<File: StorageFile> {
    typealias Completion = (Result<CacheRecordFileExtent?, StorageFileError>) -> Void
    private static var pieceBytes: Int { 1 << 20 }

    private let file: File
    private let key: SecretKey
    private let fragmentsMax: Int
    private let onRecords: (CacheFragmentRecords) -> Void
    private let completion: Completion
    private var extent: CacheRecordFileExtent?
    private var opener: CacheFragments?
    private var bytes = ByteBuffer()
    private var offset: UInt64 = 0

    /// - Parameters:
    ///   - fragmentsMax: so many fragments are read at most.
    ///   - onRecords: gets the records of each fragment.
    ///   - completion: gets nil when the file has no header that the key has sealed.
    init(
        file: File, key: SecretKey, fragmentsMax: Int = .max, onRecords: @escaping (CacheFragmentRecords) -> Void = { _ in },
        completion: @escaping Completion
    ) {
        self.file = file
        self.key = key
        self.fragmentsMax = fragmentsMax
        self.onRecords = onRecords
        self.completion = completion
    }

    func start() {
        file.read(at: offset, byteCount: Self.pieceBytes) { [self] result in
            switch result {
            case .failure(let error): completion(.failure(error))
            case .success(let piece):
                offset += UInt64(piece.readableBytes)
                bytes.writeImmutableBuffer(piece)
                if take(), piece.readableBytes == Self.pieceBytes { start() } else { completion(.success(extent)) }
            }
        }
    }

    /// Takes what is whole; false when nothing more can come.
    private func take() -> Bool {
        if opener == nil {
            guard let header = CacheRecordFileHeader(parsing: bytes),
                let derived = try? key.derive(salt: header.salt, purpose: CacheFormat.recordsPurpose)
            else { return false }
            let cipher = BlockCipher(key: derived)
            guard header.isAuthentic(bytes, cipher: cipher) else { return false }
            extent = CacheRecordFileExtent(header: header)
            opener = CacheFragments(header: header, cipher: cipher)
            bytes.moveReaderIndex(forwardBy: CacheRecordFileHeader.byteCount)
        }
        while (extent?.chains.count ?? 0) < fragmentsMax {
            let number = opener?.count ?? 0
            switch opener?.open(&bytes) {
            case .records(let records, let isLast)?:
                if let extent { onRecords(CacheFragmentRecords(salt: extent.header.salt, fragment: number, records: records)) }
                if let chain = opener?.chain { extent?.chains.append(chain) }
                extent?.byteCount = opener?.offset ?? 0
                if isLast {
                    extent?.isComplete = true
                    return false
                }
            case .incomplete?:
                bytes.discardReadBytes()
                return true
            case .some(.none), nil: return false
            }
        }
        return false
    }
}
