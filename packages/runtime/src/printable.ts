/**
 * Text for a terminal. Names come from elsewhere: what would move the cursor, change colours or turn
 * the direction of writing is written as JSON escapes it, lines and tabs excepted.
 */
export function printable(text: string): string {
  return text.replaceAll(
    /(?![\n\t])[\p{Cc}\p{Bidi_Control}]/gu,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
