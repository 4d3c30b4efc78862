/* Runs in a worker behind ONNX Runtime Web, whose module is `ort`: the page stays responsive. */
const bytes = (text) => {
  const raw = atob(text);
  const found = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) found[i] = raw.charCodeAt(i);
  return found;
};
const unzipped = async (text) => {
  const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};
const sessions = {};

const open = async ({ wasm, models }) => {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = (await unzipped(wasm)).buffer;
  ort.env.logLevel = "error";
  for (const [name, model] of Object.entries(models)) {
    sessions[name] = await ort.InferenceSession.create(await unzipped(model), {
      executionProviders: ["wasm"],
    });
  }
  return {};
};

const KINDS = { int64: BigInt64Array, float32: Float32Array };
const tensor = ({ type, data, dims }) =>
  new ort.Tensor(type, KINDS[type].from(data, type === "int64" ? BigInt : undefined), dims);

/* (1, 3, H, W) in [-1, 1] -> H x W pixels of RGBA, rounded as the library rounds. */
const pixels = (images) => {
  const [, , height, width] = images.dims;
  const area = height * width;
  const rgba = new Uint8ClampedArray(4 * area).fill(255);
  for (let channel = 0; channel < 3; channel++) {
    for (let i = 0; i < area; i++) {
      rgba[4 * i + channel] = (images.data[channel * area + i] + 1) * 127.5;
    }
  }
  return { rgba, width, height };
};

const draw = async ({ model, inputs }) => {
  const feeds = Object.fromEntries(Object.entries(inputs).map(([k, v]) => [k, tensor(v)]));
  const start = performance.now();
  const { images } = await sessions[model].run(feeds);
  return { ...pixels(images), ms: performance.now() - start };
};

onmessage = async ({ data: { id, ...asked } }) => {
  try {
    const made = asked.models ? await open(asked) : await draw(asked);
    postMessage({ id, ...made }, made.rgba ? [made.rgba.buffer] : []);
  } catch (error) {
    postMessage({ id, error: String(error?.message ?? error) });
  }
};
