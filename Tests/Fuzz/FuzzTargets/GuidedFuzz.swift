#if COVERAGE_GUIDED
    import CFuzz
    import Foundation

    // libFuzzer drives one parser by the coverage of all code: built with -sanitize=fuzzer. It brings its own
    // watchdogs and keeps what it finds.

    /// The parser that libFuzzer drives; its callback carries no context, and one process drives one.
    nonisolated(unsafe) private var guidedTarget: (any FuzzTarget)?

    /// Runs libFuzzer on a parser, with libFuzzer's own arguments.
    public func runGuided(_ type: any FuzzTarget.Type, arguments: [String]) -> Int32 {
        guidedTarget = type.init()
        var pointers: [UnsafeMutablePointer<CChar>?] = (["causeway-fuzz"] + arguments).map { strdup($0) }
        pointers.append(nil)
        var count = Int32(pointers.count - 1)
        return pointers.withUnsafeMutableBufferPointer { buffer in
            guard var base = buffer.baseAddress else { return 1 }
            return withUnsafeMutablePointer(to: &base) { LLVMFuzzerRunDriver(&count, $0, guidedCallback) }
        }
    }

    private func guidedCallback(_ bytes: UnsafePointer<UInt8>?, _ length: Int) -> Int32 {
        let input = Array(UnsafeBufferPointer(start: bytes, count: length))
        do { _ = try guidedTarget?.run(input) } catch { fatalError("\(error)") }
        return 0
    }
#endif
