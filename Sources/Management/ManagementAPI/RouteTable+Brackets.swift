import APIModels
import Hummingbird

extension RouteTable {
    static let brackets: [Route] = brackets(.volume, of: "a volume") + brackets(.group, of: "a group")

    private static func brackets(_ kind: BracketSubject.Kind, of what: String) -> [Route] {
        let path = "/v1/\(kind.rawValue)s/{name}/bracket"
        let name = kind.rawValue.capitalized
        let answer = Route.Answer(status: 200, content: [.json("Bracket")], summary: "The bracket.")
        let subject = { @Sendable (call: Call) in BracketSubject(kind: kind, name: call.parameter("name")) }
        return [
            Route(
                method: .post, path: path, identifier: "begin\(name)Bracket", tag: "\(kind.rawValue)s",
                summary: "Begin a bracket round a seal of \(what): bring the writers to rest, seal, let them go on. It ends by itself.",
                body: .init(schema: "BracketCreate", required: false), answers: [answer], errors: [409, 503]
            ) { try .json(try await $0.controller.beginBracket(subject($0), $0.decode(BracketCreate.self))) },
            Route(
                method: .get, path: path, identifier: "get\(name)Bracket", tag: "\(kind.rawValue)s",
                summary: "The last bracket of \(what), and what came of it.", answers: [answer], errors: [503]
            ) { try .json(try await $0.controller.bracket(subject($0))) },
            Route(
                method: .post, path: "\(path)/seal", identifier: "seal\(name)Bracket", tag: "\(kind.rawValue)s",
                summary: "The writers are at rest: seal an application-consistent point of \(what).", answers: [answer], errors: [409, 503]
            ) { try .json(try await $0.controller.sealBracket(subject($0))) },
            Route(
                method: .delete, path: path, identifier: "end\(name)Bracket", tag: "\(kind.rawValue)s",
                summary: "End a bracket of \(what) without a point.", answers: [answer], errors: [409, 503]
            ) { try .json(try await $0.controller.endBracket(subject($0))) },
        ]
    }
}
