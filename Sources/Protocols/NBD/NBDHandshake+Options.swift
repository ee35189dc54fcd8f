import NIOCore

// The options that say something about exports, and how replies are written.
extension NBDHandshake {
    func listExports(_ data: ByteBuffer, _ output: inout ByteBuffer) {
        if data.readableBytes > 0 { return reply(to: .list, .invalid, "the option has no data", &output) }
        for name in list() {
            var server = ByteBuffer()
            server.writeInteger(UInt32(name.utf8.count))
            server.writeString(name)
            reply(to: .list, .server, data: server, &output)
        }
        reply(to: .list, .acknowledged, &output)
    }

    /// `NBD_OPT_INFO` and `NBD_OPT_GO`.
    /// - Returns: what the client may enter with; nil when the option was answered with an error.
    mutating func tellExport(_ option: NBDOption, _ data: inout ByteBuffer, _ output: inout ByteBuffer) -> NBDTerms? {
        guard let name = Self.countedString(&data), let count: UInt16 = data.readInteger(), data.readableBytes == Int(count) * 2 else {
            reply(to: option, .invalid, "the lengths do not fit", &output)
            return nil
        }
        var wanted: Set<UInt16> = []
        while let information: UInt16 = data.readInteger() { wanted.insert(information) }
        guard let export = found(name, option, &output) else { return nil }
        if wanted.contains(NBDInformation.blockSize) { blockSizeExport = export.name }
        let terms = terms(for: export)

        var information = ByteBuffer()
        information.writeMultipleIntegers(
            NBDInformation.export, export.byteCount,
            export.transmissionFlags(usesStructuredReplies: terms.usesStructuredReplies).rawValue)
        reply(to: option, .information, data: information, &output)
        if wanted.contains(NBDInformation.name) {
            information.clear()
            information.writeInteger(NBDInformation.name)
            information.writeString(export.name)
            reply(to: option, .information, data: information, &output)
        }
        if wanted.contains(NBDInformation.blockSize) {
            information.clear()
            information.writeMultipleIntegers(
                NBDInformation.blockSize, NBDExport.minimumBlockByteCount, NBDExport.preferredBlockByteCount,
                NBDExport.maximumBlockByteCount)
            reply(to: option, .information, data: information, &output)
        }
        reply(to: option, .acknowledged, &output)
        return terms
    }

    /// The export behind a name; nil after the client was told that there is none.
    private func found(_ name: String, _ option: NBDOption, _ output: inout ByteBuffer) -> NBDExport? {
        switch find(name) {
        case .found(let export): return export
        case .unknown: reply(to: option, .unknownExport, "there is no such export for this client", &output)
        case .notReady: reply(to: option, .unknownExport, "the exports are not all there yet: try again", &output)
        }
        return nil
    }

    /// `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`.
    mutating func answerContexts(_ option: NBDOption, _ data: inout ByteBuffer, _ output: inout ByteBuffer) {
        let sets = option == .setMetadataContext
        guard usesStructuredReplies else {
            return reply(to: option, .invalid, "structured replies come first", &output)
        }
        guard let name = Self.countedString(&data), let count: UInt32 = data.readInteger() else {
            return reply(to: option, .invalid, "the lengths do not fit", &output)
        }
        var queries: [String] = []
        // Each query takes four bytes at least, so the count is bounded by what came.
        while queries.count < Int(count), let query = Self.countedString(&data) { queries.append(query) }
        guard queries.count == Int(count), data.readableBytes == 0 else {
            return reply(to: option, .invalid, "the lengths do not fit", &output)
        }
        if sets { allocationExport = nil }
        guard let export = found(name, option, &output) else { return }
        let matches = queries.contains { $0 == Self.allocationContext || (!sets && $0 == "base:") } || (!sets && queries.isEmpty)
        if matches {
            if sets { allocationExport = export.name }
            var context = ByteBuffer()
            context.writeInteger(sets ? Self.allocationContextIdentifier : 0)
            context.writeString(Self.allocationContext)
            reply(to: option, .metadataContext, data: context, &output)
        }
        reply(to: option, .acknowledged, &output)
    }

    // MARK: Strings

    /// A string with its length in 32 bits before it; nil when it is not whole, too long, or no text.
    static func countedString(_ data: inout ByteBuffer) -> String? {
        guard let byteCount: UInt32 = data.readInteger() else { return nil }
        return string(&data, byteCount: Int(byteCount))
    }

    /// A string of the protocol: UTF-8 without NUL, of at most 4096 bytes.
    static func string(_ data: inout ByteBuffer, byteCount: Int) -> String? {
        guard byteCount <= maximumStringByteCount, let bytes = data.readSlice(length: byteCount),
            let text = String(validating: bytes.readableBytesView, as: UTF8.self), !text.utf8.contains(0)
        else { return nil }
        return text
    }

    // MARK: Replies

    func reply(to option: NBDOption, _ type: NBDOptionReply, data: ByteBuffer = ByteBuffer(), _ output: inout ByteBuffer) {
        output.writeMultipleIntegers(NBDMagic.optionReply, option.rawValue, type.rawValue, UInt32(data.readableBytes))
        output.writeImmutableBuffer(data)
    }

    func reply(to option: NBDOption, _ error: NBDOptionReply, _ message: String, _ output: inout ByteBuffer) {
        reply(to: option, error, data: ByteBuffer(string: message), &output)
    }
}
