/** Server-sent events from a response to POST, which EventSource cannot make. */

const SILENCE_MS = 45_000;

/** Nothing comes from the service any more, or never came. */
export class ConnectionLost extends Error {}

/**
 * The events of a response, in order. The service sends a comment every ten seconds: one that is silent for
 * much longer is taken for gone.
 * @param {Response} response
 * @returns {AsyncGenerator<{name: string, data: any}>}
 */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let isOver = false;
  try {
    for (;;) {
      const { done, value } = await unlessSilent(reader.read());
      if (done) {
        isOver = true;
        return;
      }
      text += value;
      const blocks = text.split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const event = parse(block);
        if (event !== null) yield event;
      }
    }
  } finally {
    if (!isOver) reader.cancel().catch(() => {}); // a stream that broke off cannot be cancelled either
  }
}

function parse(block) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("data: ")) data.push(line.slice(6));
  }
  return data.length === 0 ? null : { name, data: JSON.parse(data.join("\n")) };
}

async function unlessSilent(reading) {
  let timer;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new ConnectionLost("the stream fell silent")), SILENCE_MS);
  });
  try {
    return await Promise.race([reading, silence]);
  } catch (error) {
    throw error instanceof TypeError ? new ConnectionLost(error.message) : error; // what fetch calls a network error
  } finally {
    clearTimeout(timer);
  }
}
