import Testing

@Suite("The output of the conformance suite")
struct SuiteReportTests {
    static let output = """

             CUnit - A unit testing framework for C - Version 2.1-3

        Suite: PreventAllow
          Test: Simple ...    [SKIPPED] Logical unit is not removable. Skipping test.
        passed
          Test: Eject ...    Set the PREVENT flag
            [FAILED] START STOP UNIT
        FAILED
            1. test_preventallow_eject.c:42  - CU_ASSERT_EQUAL(ret,0)
        Suite: Read10
          Test: Simple ...    Send READ10 blocks:1
            [OK] READ10 returned SUCCESS
        passed    Send PRIN/READ_KEYS

        Run Summary:    Type  Total    Ran Passed Failed Inactive
                      suites      2      2    n/a      0        0
                       tests      3      3      2      1        0
                     asserts     17     17     16      1      n/a
        """

    @Test("Is read test by test")
    func reading() {
        let report = SuiteReport(Self.output)
        #expect(report.entries.map(\.name) == ["PreventAllow.Simple", "PreventAllow.Eject", "Read10.Simple"])
        #expect(report.entries.map(\.hasPassed) == [true, false, true])
        #expect(report.entries[0].skips == ["[SKIPPED] Logical unit is not removable. Skipping test."])
        #expect(report.entries[1].failures.count == 2 && report.entries[2].skips.isEmpty)
        #expect(report.countInSummary == 3)
    }

    @Test("That breaks off is seen to")
    func brokenOff() {
        let report = SuiteReport(String(Self.output.prefix(300)))
        #expect(report.countInSummary == nil && report.entries.last?.hasPassed == false)
    }
}
