import LoadGenerator
import Testing

@Suite struct NegativeArgumentTests {
    @Test(arguments: [
        ("cache partition lab --size -5 --output json", "-5", "--size"), ("run --range=-4MiB", "-4MiB", "--range"),
        ("volume set mail --rate --limit -.5s", "-.5s", "--limit"), ("run --fua 5 -7", "-7", nil), ("cache resize -20GiB", "-20GiB", nil),
        ("disk resize mail -1", "-1", nil),
    ])
    func isFound(line: String, text: String, option: String?) throws {
        let found = try #require(NegativeArgument(in: line.split(separator: " ").map(String.init)))
        #expect(found.text == text && found.option == option, "\(found)")
        #expect(found.description.contains("“\(text)” is a negative number") && found.description.contains("positive"))
    }

    @Test(arguments: [
        "cache resize 5GiB -v", "run --range 0-5MiB --mix 70/30", "join - --name a-5", "line enter lab -- sleep -5", "--a=b=-5 x- -", "",
        "volume show mail -..5", "--limit=",
    ])
    func isNone(line: String) {
        #expect(NegativeArgument(in: line.split(separator: " ").map(String.init)) == nil)
    }
}
