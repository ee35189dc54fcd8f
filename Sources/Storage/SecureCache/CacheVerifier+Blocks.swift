import Blocks
import Ciphers
import NIOCore

extension CacheVerifier {
    /// Slots that are read at a time.
    private static var pieceSlots: Int { 256 }
    /// Segments whose owners are looked up in the whole index at a time.
    private static var lookupSegmentsMax: Int { 1024 }

    /// A segment that is being judged.
    final class Judgement {
        let number: Int
        let segment: CacheSegment
        /// The run ended before it was full.
        let isUnfinished: Bool
        let owners: [CacheOwner]
        /// The slots with blocks that count, and of which volume they are.
        var slots: ArraySlice<(index: Int, volume: CacheVolume, block: UInt64)>
        /// What was not as it should be, by slots; and the last slot that was.
        var bad: [(index: Int, volume: CacheVolume, block: UInt64, kind: CacheBlockDamage.Kind)] = []
        var lastGood = -1

        init(
            _ number: Int, _ segment: CacheSegment, isUnfinished: Bool, owners: [CacheOwner],
            slots: ArraySlice<(index: Int, volume: CacheVolume, block: UInt64)>
        ) {
            self.number = number
            self.segment = segment
            self.isUnfinished = isUnfinished
            self.owners = owners
            self.slots = slots
        }
    }

    // MARK: Segments

    /// Judges the segments from one on, whose owners the file tells.
    func judgeSegments(from first: Int) {
        guard let found, let key else { return }
        onProgress(blocksLeft * UInt64(CacheFormat.slotBytes))
        guard let number = found.segments[first...].firstIndex(where: { $0.liveCount > 0 }) else { return judgeOthers(withoutOwners[...]) }
        report.segmentCount += 1
        let next = { [self] in judgeSegments(from: number + 1) }
        if found.ownersInMemory[number] != nil {
            // Nobody has written down which blocks it has.
            withoutOwners.append(number)
            return next()
        }
        let geometry = found.geometry
        let byteCount = geometry.slotCount * CacheFormat.ownerBytes + BlockCipher.tagByteCount
        file.read(at: geometry.offset(ofOwnersIn: number), byteCount: byteCount) { [self] result in
            let salt = found.salts[Int(found.segments[number].salt)]?.bytes
            let derived = salt.flatMap { try? key.derive(salt: $0, purpose: CacheFormat.ownersPurpose) }
            let owners = (try? result.get()).flatMap { bytes in
                derived.flatMap {
                    CacheOwner.open(
                        bytes, of: number, found.segments[number], geometry, cipher: BlockCipher(key: $0), found.index, found.salts)
                }
            }
            if owners == nil {
                report.segmentsWithoutOwners += 1
                report.note(
                    CacheDamage(
                        file: nil, offset: geometry.offset(ofOwnersIn: number),
                        text: "what segment \(number) was filled with can't be read"))
            }
            guard let owners, let judgement = judgement(of: number, owners, isUnfinished: false) else {
                withoutOwners.append(number)
                return next()
            }
            judge(judgement, then: next)
        }
    }

    /// Judges segments whose owners only the index tells.
    private func judgeOthers(_ numbers: ArraySlice<Int>) {
        guard let found else { return }
        guard !numbers.isEmpty else { return completion(.success(report)) }
        let some = numbers.prefix(Self.lookupSegmentsMax)
        let owners = CacheIndex.owners(of: Set(some), in: found.index, found.geometry, found.shared)
        func judgeNext(_ left: ArraySlice<Int>) {
            guard let number = left.first else { return judgeOthers(numbers.dropFirst(some.count)) }
            onProgress(blocksLeft * UInt64(CacheFormat.slotBytes))
            let isUnfinished = found.ownersInMemory[number] != nil
            guard let judgement = judgement(of: number, owners[number] ?? [], isUnfinished: isUnfinished) else {
                return judgeNext(left.dropFirst())
            }
            judge(judgement) { judgeNext(left.dropFirst()) }
        }
        judgeNext(some)
    }

    /// Nil when the owners are not all those that the index has there.
    private func judgement(of number: Int, _ owners: [CacheOwner], isUnfinished: Bool) -> Judgement? {
        guard let found else { return nil }
        var slots: [(index: Int, volume: CacheVolume, block: UInt64)] = []
        var slotCount = 0
        for (index, owner) in owners.enumerated() {
            let slot = found.geometry.slot(index, in: number)
            let before = slots.count
            // One slot may be blocks of several volumes.
            for owner in owner == CacheFormat.sharedOwner ? found.shared[slot]?.references ?? [] : [owner] {
                guard let volume = found.index[ordinal: owner.volume], volume.map.slot(of: owner.block) == slot else { continue }
                slots.append((index, volume, owner.block))
            }
            if slots.count > before { slotCount += 1 }
        }
        guard slotCount == Int(found.segments[number].liveCount) else { return nil }
        return Judgement(number, found.segments[number], isUnfinished: isUnfinished, owners: owners, slots: slots[...])
    }

    // MARK: Blocks

    /// Judges what is left of a segment, a piece at a time.
    private func judge(_ judgement: Judgement, then next: @escaping () -> Void) {
        guard let found, let first = judgement.slots.first else {
            end(judgement)
            return next()
        }
        let piece = judgement.slots.prefix { $0.index < first.index + Self.pieceSlots }
        judgement.slots = judgement.slots.dropFirst(piece.count)
        blocksLeft -= UInt64(piece.count)
        guard let start = piece.first?.index, let last = piece.last?.index else { return judge(judgement, then: next) }
        let geometry = found.geometry
        file.read(
            at: geometry.offset(ofSlot: start, in: judgement.number), byteCount: (last + 1 - start) * CacheFormat.slotBytes
        ) { [self] result in
            for (index, volume, block) in piece {
                let position = (index - start) * CacheFormat.slotBytes
                let kind: CacheBlockDamage.Kind?
                switch result {
                case .failure: kind = .unreadable
                case .success(let bytes): kind = self.kind(of: bytes, at: position, index, volume, judgement)
                }
                if let kind {
                    judgement.bad.append((index, volume, block, kind))
                } else {
                    judgement.lastGood = index
                    count(volume) { $0.authentic += 1 }
                }
            }
            judge(judgement, then: next)
        }
    }

    private func count(_ volume: CacheVolume, _ body: (inout CacheReport.Volume) -> Void) {
        guard let index = report.volumes.firstIndex(where: { $0.identifier == volume.identifier }) else { return }
        body(&report.volumes[index])
    }

    /// Slots are filled in order: of a segment that was being filled, what is behind the last block that is whole may not have been
    /// written yet when the run ended.
    private func end(_ judgement: Judgement) {
        guard let found else { return }
        for (index, volume, block, kind) in judgement.bad {
            if judgement.isUnfinished, index > judgement.lastGood, kind != .unreadable {
                count(volume) { $0.unwritten += 1 }
                continue
            }
            count(volume) { $0.damaged += 1 }
            report.note(
                CacheBlockDamage(
                    kind: kind, offset: found.geometry.offset(ofSlot: index, in: judgement.number), volume: volume.identifier,
                    block: block))
        }
    }

    /// What is wrong with a block; nil for one that is what was written.
    private func kind(
        of bytes: ByteBuffer, at position: Int, _ index: Int, _ volume: CacheVolume, _ judgement: Judgement
    ) -> CacheBlockDamage.Kind? {
        guard let found, let sealed = bytes.getSlice(at: bytes.readerIndex + position, length: CacheFormat.slotBytes) else {
            return .missing
        }
        if opens(sealed, index, judgement) { return nil }
        // Where sectors begin in it.
        let offset = found.geometry.offset(ofSlot: index, in: judgement.number)
        let ahead = Int(
            (UInt64(BlockGeometry.sectorBytes) - offset % UInt64(BlockGeometry.sectorBytes)) % UInt64(BlockGeometry.sectorBytes))
        let view = sealed.readableBytesView
        if view.allSatisfy({ $0 == 0 }) { return .missing }
        for start in stride(from: ahead, through: view.count - BlockGeometry.sectorBytes, by: BlockGeometry.sectorBytes) {
            let sector = view[view.startIndex + start..<view.startIndex + start + BlockGeometry.sectorBytes]
            if sector.allSatisfy({ $0 == 0 }) { return .torn }
        }
        // Where it belongs is looked for only while it is told.
        guard report.blockDamages.count + judgement.bad.count < CacheReport.damagesMax else { return .corrupt }
        for (other, owner) in judgement.owners.enumerated() where other != index {
            if owner != CacheFormat.noOwner, opens(sealed, other, judgement) { return .misplaced }
        }
        return .corrupt
    }

    /// True when a text is what a slot of a segment was filled with.
    private func opens(_ sealed: ByteBuffer, _ index: Int, _ judgement: Judgement) -> Bool {
        guard let found else { return false }
        let (segment, owner) = (judgement.segment, judgement.owners[index])
        let nonce = CipherNonce(sequence: segment.sequence, index: UInt32(index))
        scratch.clear()
        if owner == CacheFormat.sharedOwner {
            guard let shared = found.shared[found.geometry.slot(index, in: judgement.number)], let sharing,
                let root = sharing.root(salt: Int(segment.salt), of: found.salts)
            else { return false }
            let context = CacheFormat.sharedContext(shared.identity.signature, sequence: segment.sequence)
            let isOpen = sharing.cipher.withCipher(of: shared.identity.keyName, root: root) { cipher in
                sealed.withUnsafeReadableBytes { cipher.open($0, nonce: nonce, context: context, appendingTo: &scratch) }
            }
            return isOpen == true && sharing.signature(of: scratch) == shared.identity.signature
        }
        guard let volume = found.index[ordinal: owner.volume], let cipher = volume.cipher(salt: Int(segment.salt), of: found.salts) else {
            return false
        }
        let context = CacheFormat.blockContext(volume.identifier, owner.block, sequence: segment.sequence)
        return sealed.withUnsafeReadableBytes { cipher.open($0, nonce: nonce, context: context, appendingTo: &scratch) }
    }
}
