/** Files that the page hands out. */

/** @param {string} url @param {string} name */
export function download(url, name) {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
}

/** @param {Blob} blob @param {string} name */
export function downloadBlob(blob, name) {
  const url = URL.createObjectURL(blob);
  download(url, name);
  setTimeout(() => URL.revokeObjectURL(url), 10_000); // the browser reads it after the click
}

/** A picture as a PNG of that size, in base64. @returns {Promise<string>} */
export async function reduced(url, width, height) {
  const picture = new Image();
  picture.src = url;
  await picture.decode();
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, width, height);
  return canvas.toDataURL("image/png").split(",")[1];
}

/** Pictures of one size beside each other, as a PNG. @param {string[]} urls @returns {Promise<Blob>} */
export async function sideBySide(urls, scale, width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = urls.length * width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  for (const [i, url] of urls.entries()) {
    const picture = new Image();
    picture.src = url;
    await picture.decode();
    context.drawImage(picture, i * width * scale, 0, width * scale, height * scale);
  }
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}
