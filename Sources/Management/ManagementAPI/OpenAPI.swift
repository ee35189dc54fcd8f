import HTTPTypes

/// Makes the OpenAPI 3.1 document from the routes and the schemas, so that it says what the server does.
enum OpenAPI {
    static func document(routes: [Route], version: String) -> JSON {
        var paths: [String: JSON] = [:]
        for route in routes {
            var item: [String: JSON] = if case .object(let members)? = paths[route.path] { members } else { [:] }
            item[route.method.rawValue.lowercased()] = operation(route)
            paths[route.path] = .object(item)
        }
        return [
            "openapi": "3.1.0",
            "info": [
                "title": "Causeway management API",
                "version": .string(version),
                "description":
                    "The API of one edge. Send “Authorization: Bearer TOKEN” with the token from the edge's token file. Every error is a problem document.",
                "license": ["name": "Apache-2.0", "identifier": "Apache-2.0"],
            ],
            "servers": [["url": "/"]],
            "tags": .array(tags.map { ["name": .string($0.0), "description": .string($0.1)] }),
            "security": [["bearer": []]],
            "paths": .object(paths),
            "components": [
                "securitySchemes": ["bearer": ["type": "http", "scheme": "bearer"]],
                "schemas": .object(Schema.named.mapValues(\.json)),
                "responses": [
                    "Problem": [
                        "description": "An error.",
                        "content": ["application/problem+json": ["schema": reference("Problem")]],
                    ]
                ],
            ],
        ]
    }

    private static let tags = [
        ("service", "Health, numbers and this document."), ("edges", "This edge and its peers."),
        ("links", "The connections to peers."),
        ("disks", "Storage that an on-prem edge owns."), ("volumes", "Disks as they are served to machines at another edge."),
        ("cache", "What a cloud edge keeps of the disks that it serves."), ("keys", "What is sealed at cloud edges is sealed under."),
        ("groups", "Volumes that have their points together."),
        ("tunnels", "TCP services that are reached over links."),
        ("pairing", "How two edges come to trust each other."), ("events", "What happened."),
    ]

    private static func reference(_ schema: String) -> JSON { ["$ref": .string("#/components/schemas/\(schema)")] }

    private static func operation(_ route: Route) -> JSON {
        var members: [String: JSON] = [
            "operationId": .string(route.identifier), "summary": .string(route.summary), "tags": [.string(route.tag)],
            "responses": responses(route),
        ]
        if route.open { members["security"] = [] }
        let parameters = parameters(route)
        if !parameters.isEmpty { members["parameters"] = .array(parameters) }
        if let body = route.body {
            members["requestBody"] = [
                "required": .bool(body.required), "content": ["application/json": ["schema": reference(body.schema)]],
            ]
        }
        return .object(members)
    }

    private static func parameters(_ route: Route) -> [JSON] {
        var parameters: [JSON] = []
        for case .parameter(let name) in route.segments {
            parameters.append(["name": .string(name), "in": "path", "required": true, "schema": ["type": "string"]])
        }
        for parameter in route.query {
            parameters.append([
                "name": .string(parameter.name), "in": "query", "required": false, "schema": parameter.schema.json,
            ])
        }
        if route.idempotent {
            parameters.append([
                "name": "Idempotency-Key", "in": "header", "required": false,
                "description":
                    "Repeating a request with the same key within a day gives the first answer instead of a second thing.",
                "schema": ["type": "string", "minLength": 1, "maxLength": .integer(Int64(IdempotencyTable<Int>.longestKey))],
            ])
        }
        if route.identifier == "listEvents" {
            parameters.append([
                "name": "Last-Event-ID", "in": "header", "required": false, "description": "Where a stream resumes.",
                "schema": ["type": "string"],
            ])
        }
        return parameters
    }

    private static func responses(_ route: Route) -> JSON {
        var responses: [String: JSON] = ["default": ["$ref": "#/components/responses/Problem"]]
        for status in route.errors { responses[String(status)] = ["$ref": "#/components/responses/Problem"] }
        for answer in route.answers {
            var content: [String: JSON] = [:]
            for case let kind in answer.content {
                switch kind {
                case .none: break
                case .json(let schema): content["application/json"] = ["schema": reference(schema)]
                case .other(let type, let summary):
                    let form: JSON = type == "application/json" ? "object" : "string"
                    content[type] = ["schema": ["type": form, "description": .string(summary)]]
                }
            }
            var members: [String: JSON] = ["description": .string(answer.summary)]
            if !content.isEmpty { members["content"] = .object(content) }
            responses[String(answer.status)] = .object(members)
        }
        return .object(responses)
    }
}
