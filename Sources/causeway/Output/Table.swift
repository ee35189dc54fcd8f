/// Columns that line up: a header, rows, numbers to the right.
struct Table {
    struct Column {
        var title: String
        var isNumber = false

        init(_ title: String, isNumber: Bool = false) {
            self.title = title
            self.isNumber = isNumber
        }
    }

    let columns: [Column]
    private(set) var rows: [[String]] = []

    init(_ columns: [Column]) { self.columns = columns }

    /// Adds a row; an empty cell is written as a dash.
    mutating func add(_ cells: String?...) {
        rows.append(
            columns.indices.map { index in
                let cell = index < cells.count ? cells[index] ?? "" : ""
                return cell.isEmpty ? "-" : Self.clean(cell)
            })
    }

    /// The text, without a line end behind the last row.
    var text: String {
        let widths = columns.indices.map { index in
            max(columns[index].title.count, rows.map { $0[index].count }.max() ?? 0)
        }
        let lines = [columns.map { $0.title.uppercased() }] + rows
        return lines.map { line in
            var result = ""
            for (index, cell) in line.enumerated() {
                let padding = String(repeating: " ", count: widths[index] - cell.count)
                result += columns[index].isNumber ? padding + cell : cell + padding
                if index < line.count - 1 { result += "  " }
            }
            while result.hasSuffix(" ") { result.removeLast() }
            return result
        }.joined(separator: "\n")
    }

    /// Names and values below each other.
    static func details(_ pairs: [(String, String?)]) -> String {
        let known = pairs.compactMap { name, value in value.map { (name, $0) } }
        let width = known.map(\.0.count).max() ?? 0
        return known.map { name, value in
            "\(name)\(String(repeating: " ", count: width - name.count))  \(clean(value))"
        }.joined(separator: "\n")
    }

    /// An edge's text cannot move the cursor of our reader.
    private static func clean(_ text: String) -> String {
        String(
            String.UnicodeScalarView(text.unicodeScalars.map { $0.value < 0x20 || (0x7F...0x9F).contains($0.value) ? "?" : $0 }))
    }
}
