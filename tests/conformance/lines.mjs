const NEWLINE = 0x0a;

/** Cuts a byte stream into lines at "\n" only: other line separators are legal inside a JSON text. */
export class LineSplitter {
  #partial = [];

  /** The lines that this chunk completes, without their newline. */
  *feed(chunk) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
      this.#partial.push(chunk.subarray(start, end));
      yield this.rest();
      start = end + 1;
    }
    if (start < chunk.length) this.#partial.push(chunk.subarray(start));
  }

  /** What came after the last newline. */
  rest() {
    const line = Buffer.concat(this.#partial);
    this.#partial = [];
    return line;
  }
}
