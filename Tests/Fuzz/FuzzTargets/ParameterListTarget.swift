import NIOCore
import SCSI

/// The lists that initiators send: UNMAP, MODE SELECT, PERSISTENT RESERVE OUT, EXTENDED COPY, and sense data. Input: which
/// list, then the list.
public final class ParameterListTarget: FuzzTarget {
    public static let name = "parameters"
    public static let dictionary: [[UInt8]] = [[0x08, 0x12], [0x0A, 0x0A], [0x88, 0x12], [0x1C, 0x0A], [0x3F, 0xFF], [0, 22, 0, 16]]

    public init() {}

    public static func seeds() throws -> [[UInt8]] {
        var seeds: [[UInt8]] = [
            [0, 0, 22, 0, 16, 0, 0, 0, 0] + [0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 0],
            [0, 0, 38, 0, 32, 0, 0, 0, 0] + [UInt8](repeating: 1, count: 32),
            [8] + [UInt8](repeating: 0, count: 15) + [1] + [UInt8](repeating: 0, count: 8),
            [6, 0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xC0, 0, 2],
            Self.copySeed,
            [6, 0x72, 5, 0x24, 0, 0, 0, 0, 8, 2, 6, 0, 0, 0xC0, 0, 2, 0],
        ]
        // What MODE SENSE (6) and (10) give of all pages.
        for cdb: [UInt8] in [[0x1A, 0, 0x3F, 0, 255], [0x5A, 0, 0x3F, 0, 0, 0, 0, 0, 255]] {
            guard case .modeSense(let request) = try CommandDescriptorBlock(cdb).parse().get() else { continue }
            let pages = try ModeParameters().sense(request, blockCount: 2048, blockBytes: 512, isWriteProtected: false)
            seeds.append([request.isTenByte ? 3 : 1] + Array(pages.readableBytesView))
        }
        return seeds
    }

    /// An EXTENDED COPY(LID1) of one segment between two targets that are designated by NAA names.
    private static var copySeed: [UInt8] {
        let target: [UInt8] =
            [0xE4, 0, 0, 0, 1, 3, 0, 16, 0x65, 0, 0, 0] + [UInt8](repeating: 7, count: 12) + [0, 0, 0, 0, 0, 0, 2, 0]
        let segment: [UInt8] = [2, 0, 0, 24, 0, 0, 0, 1, 0, 0, 0, 8] + [UInt8](repeating: 0, count: 16)
        let header: [UInt8] = [1, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 0]
        return [7] + header + target + target + segment
    }

    public func run(_ input: [UInt8]) throws -> UInt64 {
        var reader = ByteReader(input)
        let kind = reader.byte()
        // A list that does not begin where its memory begins.
        var list = ByteBuffer(bytes: [7, 7, 7] + reader.rest())
        list.moveReaderIndex(forwardBy: 3)
        var fingerprint = Fingerprint()
        fingerprint.add(kind & 7)
        var isOverLimit = false
        do throws(SenseData) {
            switch kind & 7 {
            case 0:
                let limits = BlockLimits()
                let extents = try UnmapParameterList.parse(list, limits: limits)
                fingerprint.add(extents.count)
                isOverLimit = extents.count > Int(limits.maximumUnmapDescriptors)
            case 1, 3:
                let parameters = try ModeParameters().selecting(list, isTenByte: kind & 2 != 0, blockBytes: 512)
                fingerprint.add((parameters.isWriteCacheEnabled ? 1 : 0) | (parameters.usesDescriptorSense ? 2 : 0))
            case 6:
                if let sense = SenseData(parsing: list) { fingerprint.add(sense.key.rawValue) }
            case 7:
                let copy = try ExtendedCopyParameterList.parse(list)
                fingerprint.add(copy.targets.count << 8 | copy.segments.count)
                isOverLimit =
                    copy.targets.count > CopyLimits.maximumTargetDescriptors
                    || copy.segments.count > CopyLimits.maximumSegmentDescriptors
            default:
                let action = PersistentReserveOut.ServiceAction(rawValue: kind >> 3) ?? .register
                let parameters = try PersistentReserveParameters.parse(list, for: PersistentReserveOut(serviceAction: action))
                fingerprint.add(String(describing: parameters).utf8.count)
            }
        } catch {
            var bytes = ByteBuffer()
            error.write(into: &bytes)
            for byte in bytes.readableBytesView { fingerprint.add(byte) }
        }
        if isOverLimit { throw FuzzFinding("a list of more descriptors than the limit was taken") }
        return fingerprint.value
    }

    /// The lengths in the headers of UNMAP's list and of EXTENDED COPY's.
    public func repair(_ input: inout [UInt8]) {
        if input.count >= 17, input[0] & 7 == 7 {
            let segments = input.count - 17 - Int(input[3]) << 8 - Int(input[4])
            if segments >= 0 { (input[11], input[12]) = (UInt8(truncatingIfNeeded: segments >> 8), UInt8(truncatingIfNeeded: segments)) }
            return
        }
        guard input.count > 9, input[0] & 7 == 0 else { return }
        let count = (input.count - 9) / 16 * 16
        (input[1], input[2]) = (UInt8(truncatingIfNeeded: (count + 6) >> 8), UInt8(truncatingIfNeeded: count + 6))
        (input[3], input[4]) = (UInt8(truncatingIfNeeded: count >> 8), UInt8(truncatingIfNeeded: count))
    }
}
