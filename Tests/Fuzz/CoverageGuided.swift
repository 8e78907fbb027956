import FoundationEssentials
import Glibc

/// What a coverage-guided fuzzer starts from.
enum Corpus {
    /// Writes every seed as a file, and the words as `words.dict`.
    static func write(_ target: any FuzzTarget, to folder: String) throws {
        try FileManager.default.createDirectory(atPath: folder + "/seeds", withIntermediateDirectories: true)
        for (number, seed) in target.seeds.enumerated() {
            try Data(seed).write(to: URL(filePath: "\(folder)/seeds/\(number)"))
        }
        let lines = target.words.map { word in
            "\"" + word.utf8.map { "\\x" + Runner.hex([$0]) }.joined() + "\"\n"
        }
        try Data(lines.joined().utf8).write(to: URL(filePath: "\(folder)/words.dict"))
    }
}

#if COVERAGE_GUIDED
    /// libFuzzer, linked in by `-sanitize=fuzzer`: https://llvm.org/docs/LibFuzzer.html#using-libfuzzer-as-a-library.
    enum CoverageGuided {
        nonisolated(unsafe) private static var target: (any FuzzTarget)?

        /// Does not return: libFuzzer ends the process.
        static func run(_ target: any FuzzTarget, arguments: [String]) {
            self.target = target
            var argv = (["fuzz"] + arguments).map { strdup($0) } + [nil]
            var argc = CInt(argv.count - 1)
            argv.withUnsafeMutableBufferPointer { buffer in
                var start = buffer.baseAddress
                _ = runDriver(&argc, &start) { bytes, count in
                    let input = Array(UnsafeBufferPointer(start: bytes, count: count))
                    do {
                        try CoverageGuided.target?.run(input)
                    } catch {
                        Runner.say("DEFECT: \(error)")
                        abort()
                    }
                    return 0
                }
            }
        }
    }

    /// libFuzzer's own `main`, which is linked in and never called, refers to it.
    @_cdecl("LLVMFuzzerTestOneInput")
    public func testOneInput(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt { 0 }

    @_silgen_name("LLVMFuzzerRunDriver")
    private func runDriver(
        _ argc: UnsafeMutablePointer<CInt>,
        _ argv: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?>,
        _ one: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
    ) -> CInt
#endif
