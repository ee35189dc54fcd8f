/// A number below zero on a command line, which the parser takes for an option: of `--size -5` it says that `--size` has no value.
///
/// None of our options and arguments takes such a number. So where a command line with one is not understood, this is why.
public struct NegativeArgument: Equatable, Sendable, CustomStringConvertible {
    /// The number as it was written.
    public let text: String
    /// The option that it was written for; nil where it stands alone.
    public let option: String?

    /// The first of a command line; nil when there is none. What follows `--` are no options.
    public init?(in arguments: some Sequence<String>) {
        var option: String?
        for argument in arguments {
            if argument == "--" { return nil }
            let isOption = argument.hasPrefix("--")
            let parts = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let value = isOption && parts.count > 1 ? parts[1] : argument[...]
            if isOption { option = String(parts[0]) }
            if Self.isNegative(value) {
                (self.text, self.option) = (String(value), option)
                return
            }
            if !isOption || parts.count > 1 { option = nil }
        }
        return nil
    }

    public var description: String {
        "“\(text)” is a negative number: " + (option.map { "\($0) takes a positive one" } ?? "only a positive one can stand there")
    }

    private static func isNegative(_ text: Substring) -> Bool {
        guard text.hasPrefix("-") else { return false }
        let number = text.dropFirst().drop { $0 == "." }
        return text.count - number.count <= 2 && number.first.map { $0.isASCII && $0.isNumber } == true
    }
}
