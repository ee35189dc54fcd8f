import APIModels
import Foundation
import Testing

@testable import ManagementAPI

@Suite struct DocumentTests {
    private func json(_ value: any Encodable) throws -> JSON {
        try APICoding.decoder().decode(JSON.self, from: APICoding.encoder().encode(value))
    }

    @Test func everySchemaHasASample() {
        #expect(Set(Schema.named.keys) == Set(Samples.whole.map(\.0)))
    }

    /// With every field set, a model has exactly the properties of its schema.
    @Test(arguments: Samples.whole.indices)
    func wholeSamplesFit(index: Int) throws {
        let (name, value) = Samples.whole[index]
        let encoded = try json(value)
        #expect(Schema.reference(name).problems(with: encoded) == [], "\(name)")
        guard case .object(let properties)? = Schema.named[name]?.form, case .object(let members) = encoded else {
            Issue.record("\(name) is no object")
            return
        }
        #expect(Set(properties.map(\.name)) == Set(members.keys), "\(name)")
    }

    /// With as few fields as it can have, a model has exactly the required properties of its schema.
    @Test(arguments: Samples.smallest.indices)
    func smallestSamplesFit(index: Int) throws {
        let (name, value) = Samples.smallest[index]
        let encoded = try json(value)
        #expect(Schema.reference(name).problems(with: encoded) == [], "\(name)")
        guard case .object(let properties)? = Schema.named[name]?.form, case .object(let members) = encoded else {
            Issue.record("\(name) is no object")
            return
        }
        #expect(Set(properties.filter(\.required).map(\.name)).isSubset(of: members.keys), "\(name)")
        #expect(Set(members.keys).isSubset(of: properties.filter(\.required).map(\.name)), "\(name)")
    }

    @Test func datesKeepTheirMilliseconds() throws {
        let text = String(decoding: try APICoding.encoder().encode(Samples.event), as: UTF8.self)
        #expect(text.contains("\"time\":\"2025-11-26T00:00:00.250Z\""))
        #expect(try APICoding.decoder().decode(Event.self, from: Data(text.utf8)) == Samples.event)
        #expect(APICoding.date("2025-11-26T00:00:00Z") == Date(timeIntervalSince1970: 1_764_115_200))
        #expect(APICoding.date("yesterday") == nil)
    }

    @Test func documentHasEveryRouteAndNoOther() async throws {
        let served = try await TestAPI().send(.get, "/openapi.json").decode(JSON.self)
        guard case .object(let paths)? = served["paths"] else {
            Issue.record("no paths")
            return
        }
        var documented: Set<String> = []
        for (path, item) in paths {
            guard case .object(let operations) = item else { continue }
            for method in operations.keys { documented.insert("\(method.uppercased()) \(path)") }
        }
        #expect(documented == Set(RouteTable.all(openMetrics: false).map { "\($0.method.rawValue) \($0.path)" }))
        #expect(served["openapi"] == "3.1.0")
    }

    @Test func everyReferenceResolves() throws {
        let document = OpenAPI.document(routes: RouteTable.all(openMetrics: false), version: "1")
        var references: Set<String> = []
        func collect(_ value: JSON) {
            switch value {
            case .object(let members):
                if case .string(let reference)? = members["$ref"] { references.insert(reference) }
                for member in members.values { collect(member) }
            case .array(let items): for item in items { collect(item) }
            default: break
            }
        }
        collect(document)
        #expect(!references.isEmpty)
        for reference in references {
            let found = reference.split(separator: "/").dropFirst().reduce(Optional(document)) { $0?[String($1)] }
            #expect(found != nil, "\(reference)")
        }
    }

    /// The reference page names every path and every code of a problem that it lists is one that the sources can give.
    @Test func referencePageNamesEveryPath() throws {
        let page = try String(contentsOf: Self.repository.appending(path: "docs/reference/api.md"), encoding: .utf8)
        for route in RouteTable.all(openMetrics: false) {
            #expect(page.contains("`\(route.method.rawValue) \(route.path)`"), "\(route.path)")
        }
    }

    /// Where `openapi-spec-validator` is installed, it finds nothing to say about the document.
    @Test(.enabled(if: validator != nil)) func documentIsValidOpenAPI() async throws {
        let file = FileManager.default.temporaryDirectory.appending(path: "openapi-\(UUID().uuidString).json")
        defer { try? FileManager.default.removeItem(at: file) }
        let document = OpenAPI.document(routes: RouteTable.all(openMetrics: false), version: "1")
        try APICoding.encoder(pretty: true).encode(document).write(to: file)
        let process = Process()
        process.executableURL = URL(fileURLWithPath: try #require(Self.validator))
        process.arguments = [file.path]
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 0, "\(text)")
    }

    static let repository = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent()
        .deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()

    static let validator: String? = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
        .map { "\($0)/openapi-spec-validator" }.first { FileManager.default.isExecutableFile(atPath: $0) }
}
