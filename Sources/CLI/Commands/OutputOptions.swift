import ArgumentParser
import Core
import NIOCore
import Wire

/// What a command's answer looks like on standard output. Errors are text on standard error in each.
enum OutputFormat: String, CaseIterable, ExpressibleByArgument {
    /// Columns under headings, for people.
    case table
    /// A JSON document on one line; its members stay what they are.
    case json
    /// Bytes and numbers as they are: a value without anything around it, rows with tabs between their cells.
    case raw
}

/// How the answer of a command is written. Every command takes these, before its name or after it.
struct OutputOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "How the answer is written: table for people, json, or raw (bytes as they are, rows with tabs).",
            discussion: "(default: raw for get, put, del, incr; json for topology; else table)", valueName: "format"))
    var output: OutputFormat?

    @Flag(help: "The same as --output json.")
    var json = false

    func validate() throws {
        guard !json || output == nil || output == .json else {
            throw ValidationError("--json is --output json: give one of the two.")
        }
    }

    func format(default format: OutputFormat = .table) -> OutputFormat { json ? .json : output ?? format }

    /// Writes an answer in the form that was asked for.
    /// - Parameters:
    ///   - format: where nothing was asked for.
    ///   - document: the answer as JSON.
    ///   - table: what people read, with its newlines.
    ///   - raw: all there is to write, with its newlines.
    func write(
        default format: OutputFormat = .table, json document: some Encodable, table: @autoclosure () -> String,
        raw: @autoclosure () -> ByteBuffer
    ) async throws {
        let isJSON = self.format(default: format) == .json
        let line = isJSON ? ByteBuffer(bytes: try DocumentCoding.encode(document) + [UInt8(ascii: "\n")]) : ByteBuffer()
        try await write(default: format, line: line, table: table(), raw: raw())
    }

    /// As ``write(default:json:table:raw:)``, of an answer whose JSON is written already, with its newline.
    func write(
        default format: OutputFormat = .table, line: @autoclosure () -> ByteBuffer, table: @autoclosure () -> String,
        raw: @autoclosure () -> ByteBuffer
    ) async throws {
        switch self.format(default: format) {
        case .table: try await Console.write(ByteBuffer(string: table()))
        case .json: try await Console.write(line())
        case .raw: try await Console.write(raw())
        }
    }
}
