export { PartsDamaged } from '../../engine/files/log/sealed-part.ts';
