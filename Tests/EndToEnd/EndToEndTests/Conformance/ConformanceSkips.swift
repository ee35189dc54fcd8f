/// The tests of libiscsi's suite of which something is left out, each with the reason why that is right. A test that is skipped
/// and does not stand here fails the conformance test, and so does one that stands here and is skipped no more.
enum ConformanceSkips {
    private static let sectorIsPhysicalBlock =
        "asks what happens to a part of a physical block, and ours is one logical block: the log frees and keeps single sectors"
    private static let zeroBlocksAreRefused = "WSNZ is set: the suite has seen zero blocks refused, and leaves out what they would fill"

    static let reasons = [
        "CompareAndWrite.InvalidDataOutSize": sectorIsPhysicalBlock,
        "WriteSame10.InvalidDataOutSize": sectorIsPhysicalBlock,
        "WriteSame16.InvalidDataOutSize": sectorIsPhysicalBlock,
        "WriteSame10.UnmapUnaligned": sectorIsPhysicalBlock,
        "WriteSame16.UnmapUnaligned": sectorIsPhysicalBlock,
        "WriteSame10.ZeroBlocks": zeroBlocksAreRefused,
        "WriteSame16.ZeroBlocks": zeroBlocksAreRefused,
        "WriteAtomic16.VPD": "nothing is asked of the alignment and the granularity of an atomic write, so nothing can be violated",
    ]
}
