import Foundation

/// What one run of `iscsi-test-cu --verbose` printed, test by test.
///
///     Suite: PreventAllow
///       Test: Simple ...    [SKIPPED] Logical unit is not removable. Skipping test.
///     passed
///       Test: Eject ...    Try to eject the medium
///         [FAILED] ...
///     FAILED
///         1. test_preventallow_eject.c:42  - CU_ASSERT_EQUAL(ret,0)
struct SuiteReport {
    struct Entry: Equatable {
        /// `Suite.Test`.
        let name: String
        var hasPassed = false
        /// What the test says that it left out.
        var skips: [String] = []
        /// What it says went wrong.
        var failures: [String] = []
    }

    private(set) var entries: [Entry] = []
    /// The number of tests that the suite says it ran; nil when it did not come to its end.
    private(set) var countInSummary: Int?

    init(_ output: String) {
        var suite = ""
        var current: Entry?
        var isOpen = false
        for line in output.split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasPrefix("Suite: ") {
                suite = String(line.dropFirst(7)).trimmingCharacters(in: .whitespaces)
            } else if line.hasPrefix("  Test: "), let dots = line.range(of: " ...") {
                if let current { entries.append(current) }
                current = Entry(name: suite + "." + line[line.index(line.startIndex, offsetBy: 8)..<dots.lowerBound])
                isOpen = true
                Self.take(line[dots.upperBound...], into: &current, &isOpen)
            } else if line.contains("Run Summary:") {
                if let current { entries.append(current) }
                current = nil
            } else if current == nil, let count = Self.testCount(line) {
                countInSummary = count
            } else {
                Self.take(line, into: &current, &isOpen)
            }
        }
        if let current { entries.append(current) }
    }

    private static func take(_ line: Substring, into entry: inout Entry?, _ isOpen: inout Bool) {
        let text = line.trimmingCharacters(in: .whitespaces)
        // What a test says is indented, its end is not; what tearing the suite down says may follow it on the same line.
        if isOpen && (line.hasPrefix("passed") || line.hasPrefix("FAILED")) {
            entry?.hasPassed = line.hasPrefix("passed")
            isOpen = false
        } else if text.contains("[SKIPP") {
            entry?.skips.append(text)
        } else if text.contains("[FAIL") || !isOpen && text.contains(" - CU_") {
            entry?.failures.append(text)
        }
    }

    /// The second column of `tests    230    230    222      8        0`.
    private static func testCount(_ line: Substring) -> Int? {
        let words = line.split(separator: " ")
        guard words.count == 6, words[0] == "tests" else { return nil }
        return Int(words[2])
    }
}
