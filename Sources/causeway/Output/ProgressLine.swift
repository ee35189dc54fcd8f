/// A bar on standard error that is drawn over itself; silent when nobody looks, and with JSON.
struct ProgressLine {
    private let label: String
    private let isShown: Bool
    private var isDrawn = false
    /// The most that was ever to be done: the bar's whole length.
    private var total: UInt64 = 0

    private static let cells = 30

    init(_ label: String, output: OutputFormat) {
        self.label = label
        isShown = output == .table && Terminal.isInteractive
    }

    /// Draws how much is left.
    mutating func update(remainingBytes: UInt64) {
        guard isShown else { return }
        total = max(total, remainingBytes)
        let done = total == 0 ? 1 : Double(total - remainingBytes) / Double(total)
        let filled = Int(done * Double(Self.cells))
        let bar = String(repeating: "#", count: filled) + String(repeating: ".", count: Self.cells - filled)
        Terminal.errorRaw("\r\u{1B}[K\(label) [\(bar)] \(Int(done * 100)) %  \(Human.bytes(remainingBytes)) left")
        isDrawn = true
    }

    /// Takes the bar away.
    mutating func finish() {
        if isDrawn { Terminal.errorRaw("\r\u{1B}[K") }
        isDrawn = false
    }
}
