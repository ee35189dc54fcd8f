/// Room for packets, allocated once. What was never used is no memory yet: the room that was given back last is given out first.
final class PacketPool {
    let slotBytes: Int
    private let memory: UnsafeMutableRawPointer
    private var free: [Int32]
    private var lengths: [Int32]

    /// Room for `count` packets of at most `slotBytes`.
    init(count: Int, slotBytes: Int) {
        self.slotBytes = (slotBytes + 63) / 64 * 64
        memory = .allocate(byteCount: count * self.slotBytes, alignment: 64)
        free = (0..<Int32(clamping: count)).reversed()
        lengths = [Int32](repeating: 0, count: count)
    }

    deinit { memory.deallocate() }

    /// Room for a packet; nil when all is taken.
    func take() -> Int? { free.popLast().map(Int.init) }

    /// Gives room back.
    func giveBack(_ slot: Int) { free.append(Int32(clamping: slot)) }

    /// How many bytes are in a slot.
    subscript(byteCountOf slot: Int) -> Int {
        get { Int(lengths[slot]) }
        set { lengths[slot] = Int32(clamping: newValue) }
    }

    /// The bytes of a slot.
    func bytes(_ slot: Int) -> UnsafeMutableRawPointer { memory + slot * slotBytes }
}
